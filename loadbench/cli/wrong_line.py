"""What is wrong with a command line, in one line with its place, and the remedy: the nearest name, or what loadbench
calls what other tools have under another name.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

import click

from loadbench.core.errors import BadInput
from loadbench.core.text import some
from loadbench.plan.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Nearer than this is a slip of the finger (`--user`, `--duratoin`); less near is another word.
_NEAR = 0.7
_SWEEPS = "`loadbench sweep --url URL` measures a server"
# What people type for a command, from other tools and from habit.
_COMMANDS = {
    word: hint
    for hint, words in (
        ("`loadbench sweep --url URL` measures a server", "run bench benchmark test load start measure attack"),
        ("`loadbench capacity --slo RULE` finds the highest load", "search slo size max limit"),
        ("`loadbench compare A B` compares two servers or two saved runs", "diff ab versus"),
        ("`loadbench report RUN` shows a saved run", "show view summary export print"),
        ("`loadbench doctor --url URL` checks a server", "check validate ping health status"),
        ("`loadbench serve` runs the simulated server", "mock simulate sim server"),
        ("`loadbench --version` prints it", "version"),
        ("`loadbench runs` lists the saved runs", "history results past"),
        ("`loadbench init` writes a scenario", "new create"),
        ("`loadbench models --url URL` lists models, `loadbench scenarios` the scenarios", "list ls"),
        ("`loadbench replay FILE` replays a trace", "trace"),
    )
    for word in words.split()
}
# What other tools (vllm bench, guidellm, aiperf, genai-perf, llmperf, k6, wrk, hey, oha) call it, or have instead. The
# names that loadbench accepts as they are stand with the settings.
_HINTS = {
    flag: hint
    for hint, flags in (
        ("use --users", "--num-users --vus --clients --connections --threads --parallel --streams -c -u"),
        ("use --rate", "--qps --rps --requests-per-second --rate-limit --arrival-rate"),
        ("use --requests", "--num-requests --max-requests --request-count --iterations --n -n"),
        ("use --duration", "--max-seconds --time --run-time --benchmark-duration --seconds -z -t -d"),
        (
            "use --url, as in --url http://127.0.0.1:8080/v1",
            "--host --port --server --api-base --target-url --address --base --endpoint-url",
        ),
        ("use --model", "--model-name --model-id --served-model-name -m"),
        (
            "a --url that ends in a route is that route; or use --api chat|completions|responses|ollama",
            "--endpoint --path",
        ),
        (
            "use --api chat|completions|responses|ollama",
            "--endpoint-type --backend --request-type --api-type --service-kind",
        ),
        (
            "use --prompts FILE, or --input-tokens N for generated prompts",
            "--dataset --dataset-path --dataset-name --data --input-file --prompt-file --prompts-file",
        ),
        (
            "use --input-tokens, as in 512 or lognormal:512,0.6",
            "--random-input-len --input-len --isl --synthetic-input-tokens-mean --prompt-tokens --mean-input-tokens",
        ),
        (
            "use --output-tokens, and --exact-output for responses of just this length",
            "--random-output-len --output-len --osl --output-tokens-mean --mean-output-tokens",
        ),
        ("use --max-tokens", "--sharegpt-output-len --max-new-tokens --max-output-tokens --max-completion-tokens"),
        ("use --exact-output", "--ignore-eos"),
        (
            "use --arrivals constant|poisson|gamma:CV",
            "--burstiness --request-distribution --rate-type --arrival-process --arrival",
        ),
        ("use --slo, as in --slo 'ttft_p95<1s'", "--goodput --thresholds --threshold --sla --objective"),
        (
            "use --warm-up, as in --warm-up 5s",
            "--warmup --warmup-time --warm-up-time --num-warmups --warmup-request-count",
        ),
        ("use --users 1,2,4,8", "--concurrency-levels --levels --sweep"),
        (
            "put the key into the variable LOADBENCH_API_KEY, or name another with --api-key-env",
            "--api-key --token --key",
        ),
        ("use --header 'Name: value'", "--headers -H"),
        ("use --extra-body JSON", "--extra-inputs --extra-request-body --request-body --body"),
        (
            "runs are saved in results/ anyway; --out names another folder",
            "--save-result --output-dir --result-dir --results-dir --artifact-dir --output-path -o",
        ),
        ("use --name", "--result-filename --label --tag"),
        ("use --quiet, or --no-live for plain lines", "--disable-tqdm --no-progress --no-tui --silent -q"),
        ("leave it out: the live view is drawn four times a second, and costs the measurement nothing", "--fps"),
        ("use --report FILE.json, .csv or .md; it may be repeated", "--export-json --export-csv --export-markdown"),
        ("use --format-err FORMAT", "--output-err -oe"),
        (
            "use --rate: latencies from the schedule are always there",
            "--latency-correction --disable-coordinated-omission -R",
        ),
        ("`loadbench try` sends one request and shows it", "--debug --verbose-request"),
        (
            "leave it out: responses are always streamed, so that first tokens are seen",
            "--stream --streaming --disable-stream --no-stream",
        ),
        ("leave it out: tokens are counted as the server reports them", "--tokenizer --trust-remote-code"),
        ("leave it out: every percentile is in run.json", "--percentile-metrics --metric-percentiles --percentiles"),
        ("use --insecure", "-k --no-verify --skip-tls-verify"),
        ("use --think, as in --think 10s", "--think-time --delay --sleep"),
        ("use --ramp", "--ramp-up --ramp-up-strategy --rampup"),
        ("name the file after the command: loadbench sweep FILE", "--config --scenario-file --file -f"),
        ("use --json, or `loadbench report RUN --format FORMAT`", "--output-format"),
        ("use --temperature", "--temp"),
        ("use --extra-body, as in --extra-body '{\"top_p\": 0.9}'", "--top-p --top-k --frequency-penalty"),
        ("use --resume DIR", "--continue --restart"),
        ("`loadbench --version` prints it", "--version -V"),
    )
    for flag in flags.split()
}


def bad_input(error: click.UsageError, command: click.Command, ctx: click.Context, written: Sequence[str]) -> BadInput:
    """What click found in the arguments that were written, in our words."""
    path, param = ctx.command_path, getattr(error, "param", None)
    see = f"`{path} --help` lists its options"
    if isinstance(error, click.NoSuchOption):
        return _unknown_option(error.option_name, command, ctx, written)
    flag = _shown(param) if param is not None else ""
    if isinstance(error, click.MissingParameter):
        usage = " ".join(command.collect_usage_pieces(ctx))
        return BadInput(f"{flag}: is missing", hint=f"write it as in {path} {usage}")
    if isinstance(error, click.BadParameter) and param is not None:
        found = re.match(r"'?(.*?)'? is not ", error.message, re.DOTALL)
        choices = [str(word) for word in getattr(param.type, "choices", ())]
        if found is None:
            return BadInput(f"{flag}: {error.message.rstrip('.')}", hint=see)
        if choices:
            near = difflib.get_close_matches(found[1], choices, n=1)
            wanted = f"{', '.join(choices[:-1])} or {choices[-1]}"
            return BadInput(
                f"{flag}: found {found[1]!r}, want {wanted}", hint=f"did you mean {near[0]}?" if near else see
            )
        least, most = getattr(param.type, "min", None), getattr(param.type, "max", None)
        wanted = f"a whole number of at least {least}" + ("" if most is None else f" and at most {most}")
        return BadInput(f"{flag}: found {found[1]!r}, want {wanted}", hint=see)
    if isinstance(error, click.BadOptionUsage):
        option = next((one for one in command.params if error.option_name in (*one.opts, *one.secondary_opts)), None)
        if "requires" in error.message and option is not None:
            metavar = option.metavar or option.type.name.upper()
            return BadInput(f"{error.option_name}: has no value", hint=f"write it as {error.option_name} {metavar}")
        return BadInput(f"{error.option_name}: takes no value", hint="write it alone")
    extra = re.search(r"unexpected extra arguments? \((.*)\)", error.message)
    if extra is not None:
        return BadInput(f"{extra[1]}: more than the command takes", hint=_hint_for_extra(extra[1], path))
    return BadInput(error.format_message().rstrip("."), hint=see)


def _unknown_option(name: str, command: click.Command, ctx: click.Context, written: Sequence[str]) -> BadInput:
    path = ctx.command_path
    options = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts) if flag[0] == "-"}
    # As it was written: of `-users` click names `-u` only.
    short = next((arg.partition("=")[0] for arg in written if not name.startswith("--") and arg.startswith(name)), name)
    whole = "-" + short if len(short) > 2 else ""
    if whole in options:
        return BadInput(f"{short}: long options begin with two hyphens", hint=f"write {whole}")
    message = f"{short}: `{path}` has no such option"
    if isinstance(command, click.Group):
        rest = [arg for arg in written if arg in command.list_commands(ctx)]
        known = any(name in setting.flags for setting in settings())
        if rest and known:
            return BadInput(f"{name}: stands before the command", hint=f"write it after: {path} {rest[0]} {name} …")
        if known:
            return BadInput(message, hint=f"name a command first, as in {path} sweep {name} …")
    # Of those that this command has.
    hint = _HINTS.get(name, "")
    named = set(re.findall(r"--[a-z][a-z-]+", hint))
    if hint and (not named or named & options or "loadbench" in hint):
        return BadInput(message, hint=hint)
    near = "" if hint else nearest(name, options)
    return BadInput(message, hint=f"did you mean {near}?" if near else f"`{path} --help` lists its options")


def unknown_command(name: str, group: click.Group, ctx: click.Context) -> BadInput:
    """Of a word that is no command of the group: the nearest one, or the one that does what the word says."""
    path, commands = ctx.command_path, group.list_commands(ctx)
    message = f"{name!r}: `{path}` has no such command"
    if "://" in name or re.fullmatch(r"[\w.-]+:\d+(/.*)?", name):
        return BadInput(message, hint=f"to measure this server: {path} sweep --url {name}")
    if name.endswith((".toml", ".json")):
        return BadInput(message, hint=f"to run this scenario: {path} sweep {name}")
    if name.startswith("-"):
        return BadInput(message, hint=f"`{path} --help` lists its commands")
    top = ctx.parent is None
    if top and name == "help":
        return BadInput(message, hint="`loadbench --help` lists the commands, `loadbench COMMAND --help` explains one")
    if top and name.lower() in _COMMANDS:
        return BadInput(message, hint=_COMMANDS[name.lower()])
    near = nearest(name.lower(), commands)
    return BadInput(message, hint=f"did you mean {near}?" if near else f"commands are {some(commands, most=30)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that may have been meant; empty if none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
    if near or len(name) < 4:
        return near[0] if near else ""
    begins = [one for one in known if one.startswith(name)]
    return begins[0] if len(begins) == 1 else ""


def _shown(param: click.Parameter) -> str:
    """As the user writes it: `--port`, or RUN."""
    flags = [flag for flag in param.opts if flag.startswith("--")]
    return flags[0] if flags else (param.metavar or (param.name or "").upper())


def _hint_for_extra(extra: str, path: str) -> str:
    first = extra.split(maxsplit=1)[0]
    if "://" in first:
        return f"a server is named with --url, as in --url {first}"
    if "=" in first:
        name, _, value = first.partition("=")
        return f"options begin with two hyphens, as in --{name.lower().replace('_', '-')} {value}"
    return f"give one, and in quotes what has spaces; `{path} --help` says what it takes"
