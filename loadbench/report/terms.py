"""The words of loadbench, each declared once: what it means, its formula, and what other tools call it.

`loadbench explain` prints them, and documents are made from them. docs/metrics.md has the whole definitions.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loadbench.core.errors import BadInput
from loadbench.report.document import Document, Heading, Notes, Table, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

# One of a kind, and all of it.
KINDS: Final = {
    "figure": ("figure of a request", "Figures of a request"),
    "mark": ("timestamp of a request", "Timestamps of a request"),
    "level": ("figure of a level", "Figures of a level"),
    "concept": ("word", "Words"),
    "status": ("verdict", "Verdicts"),
    "code": ("reason of a verdict", "Why a level is INVALID, OVERLOADED or INCONCLUSIVE"),
    "caveat": ("caveat", "Caveats"),
    "outcome": ("outcome of a request", "Outcomes of a request"),
    "state": ("state", "States and decisions"),
    "column": ("column or mark of a table", "Columns and marks of tables"),
}


@dataclass(frozen=True, slots=True)
class Term:
    """One word. `kind` is one of `KINDS`; `others` are (tool, its name for this); `remedy` says what to do about a code
    or an outcome; `undefined` says when a figure has no value; `also` are other ways to write it."""

    name: str
    kind: str
    text: str
    formula: str = ""
    undefined: str = ""
    others: Sequence[tuple[str, str]] = ()
    remedy: str = ""
    see: Sequence[str] = ()
    also: Sequence[str] = ()


_NO_TOKEN = "there was no token"
_GENERATOR = (
    "end other programs on its machine; else give the load generator its own core, add --workers, or reduce the load"
)

# fmt: off
TERMS: Final[tuple[Term, ...]] = (
    # Figures of a request.
    Term("ttft", "figure", "Time to first token: from the request being sent until the first event with text arrived.",
         "first_token − sent", _NO_TOKEN,
         (("SGLang, guidellm, AIPerf", "TTFT, with the set-up of a new connection and the tool's own delay"),
          ("vLLM", "TTFT, unless its first frame has only a role: then `ttfb`")),
         see=("ttft_response", "ttfo", "ttfb"), also=("time to first token", "first token latency")),
    Term("ttft_response", "figure", "Time to first token from when the request was due: what a user waits, with the "
         "delay of the load generator.", "first_token − due", _NO_TOKEN,
         (("MLPerf LoadGen", "first token latency"),), see=("ttft", "due")),
    Term("ttfo", "figure", "Time to first output: until the first visible text, after any reasoning.",
         "first_visible − sent", "there was no visible text", (("llmperf", "ttft_s"),), see=("ttft",),
         also=("time to first output",)),
    Term("ttfb", "figure", "Time to first byte of the response's body.", "first_byte − sent",
         "nothing arrived, or the response began before the whole request was sent",
         (("vLLM bench serve", "TTFT, if the first frame has a role but no text"),), see=("ttft",),
         also=("time to first byte",)),
    Term("e2e", "figure", "End-to-end latency: from the request being sent until its last token arrived.",
         "last_token − sent", _NO_TOKEN, (("vLLM", "E2EL"), ("AIPerf", "request latency")),
         see=("e2e_response", "stream_end"), also=("e2el", "end to end", "latency", "request latency")),
    Term("e2e_response", "figure", "End-to-end latency from when the request was due.", "last_token − due", _NO_TOKEN,
         (("MLPerf LoadGen", "latency"),), see=("e2e", "due")),
    Term("stream_end", "figure", "Until the stream ended, after the last token.", "end − sent",
         "the request was not sent",
         (("SGLang", "E2E latency"), ("guidellm", "request latency"), ("llmperf", "end_to_end_latency_s")),
         see=("e2e",)),
    Term("tpot", "figure", "Time per output token, after the first: how fast text is generated for one user.",
         "(last_token − first_token) ÷ (N − tokens in the first event)",
         "everything arrived in one read, there is one token, or an unknown number of tokens is hidden",
         (("vLLM, SGLang, MLPerf LoadGen", "TPOT, as `tpot_classic`"), ("guidellm, AIPerf", "ITL, as `tpot_classic`")),
         see=("tpot_classic", "itl", "event_gap"), also=("time per output token",)),
    Term("tpot_classic", "figure", "Time per output token as most tools define it: the first token apart.",
         "(e2e − ttft) ÷ (N − 1)", "N < 2",
         (("vLLM", "TPOT, from its own TTFT"), ("SGLang", "TPOT, up to [DONE]"), ("guidellm, AIPerf", "ITL"),
          ("MLPerf LoadGen", "time per output token")), see=("tpot",)),
    Term("itl", "figure", "Inter-token latency: the gap before an event, divided by the tokens in it. Each "
         "event counts as often as it has tokens.",
         "event gap ÷ tokens in its later event", "the number of tokens per event is unknown",
         (("SGLang", "ITL of its server's histogram, and of its client on its own route"),
          ("guidellm, AIPerf", "their ITL is `tpot_classic`"),
          ("vLLM", "its ITL is `event_gap`")), see=("event_gap", "tpot"), also=("inter token latency",)),
    Term("event_gap", "figure", "Time between two consecutive events with text: what a reader sees as a stutter. "
         "An event may have several tokens.", "time between two events; k events have k − 1 gaps",
         "there was only one event",
         (("vLLM", "ITL"), ("SGLang", "ITL on the OpenAI routes"), ("AIPerf", "inter-chunk latency"),
          ("OpenTelemetry", "gen_ai.client.operation.time_per_output_chunk")), see=("itl",),
         also=("gap", "inter chunk latency")),
    Term("e2e_per_token", "figure", "End-to-end latency over the output tokens; its inverse is the speed that one user "
         "sees, the wait included.", "e2e ÷ N", "N is unknown",
         (("guidellm", "TPOT, with the TTFT in it"), ("llmperf", "inter_token_latency_s, with the TTFT in it")),
         see=("tpot",)),
    Term("lateness", "figure", "The load generator's own delay before it sent a request.", "sent − due − connect",
         "the request was not sent", see=("late_start", "coordinated omission")),
    Term("connect", "figure", "Name look-up, TCP and TLS of a new connection. It is in no latency.",
         "connected − begin of connecting", "the connection was reused"),
    Term("server_queue", "figure", "Time in the server's queue, as the server itself reports it.", "",
         "the server does not report it", see=("server_prefill",), also=("ttft queue",)),
    Term("server_prefill", "figure", "Time to process the prompt, as the server itself reports it.", "",
         "the server does not report it", see=("server_queue", "server_decode"), also=("ttft prefill",)),
    Term("server_decode", "figure", "Time to generate after the first token, as the server itself reports it.", "",
         "the server does not report it", see=("server_prefill",)),
    Term("server_rest", "figure", "The part of TTFT that the server's own times do not explain: network, HTTP.",
         "ttft − server_queue − server_prefill", "the server does not report its times", see=("server_prefill",),
         also=("ttft rest",)),

    # Timestamps.
    Term("due", "mark", "The schedule says that the request starts. In a closed loop: the user's previous response has "
         "ended and the think time is over.", see=("sent", "lateness")),
    Term("connected", "mark", "The connection was ready.", see=("connect",)),
    Term("sent", "mark", "The last byte of the request was handed to the socket.", see=("due", "ttft")),
    Term("headers", "mark", "The header block of the response was complete."),
    Term("first_byte", "mark", "The first byte of the body arrived.", see=("ttfb",)),
    Term("first_token", "mark", "The first event with text arrived: response text, reasoning or a tool call.",
         see=("ttft",)),
    Term("first_visible", "mark", "The first event with response text, not reasoning, arrived.", see=("ttfo",)),
    Term("last_token", "mark", "The last event with text arrived.", see=("e2e",)),
    Term("end", "mark", "[DONE] arrived, or the stream ended or broke.", see=("stream_end",)),

    # Figures of a level.
    Term("output_tokens_per_s", "level", "Output tokens that arrived in the window, of all users together.",
         "output tokens in the window ÷ window",
         others=(("vLLM", "output token throughput"), ("guidellm", "output tokens per second"),
                 ("SGLang", "output token throughput")), also=("tok/s", "tokens per second", "throughput", "tps",
                                                           "output tokens/s", "highest output tokens/s"),
         see=("requests_per_s", "knee")),
    Term("requests_per_s", "level", "Requests that completed in the window.", "completed requests ÷ window",
         others=(("vLLM, SGLang", "request throughput"),), see=("output_tokens_per_s",),
         also=("req/s", "requests/s", "rps", "qps")),
    Term("total_tokens_per_s", "level", "Input and output tokens of the window.", "(input + output tokens) ÷ window",
         others=(("vLLM", "total token throughput"),), see=("output_tokens_per_s",)),
    Term("goodput", "level", "Throughput of the requests that met every objective of the level. A request that failed "
         "or lacks a figure is a miss. Tables show it for the responses that ended in the window, as `req/s`, so that "
         "it is never the larger; files have the good requests that were due in the window, divided by it.",
         "req/s × good requests ÷ ok requests", others=(("vLLM", "request goodput"),),
         see=("objective", "attainment")),
    Term("attainment", "level", "The share of all measured arrivals that met every objective, with its interval.",
         "good requests ÷ arrivals", see=("goodput",)),
    Term("concurrency", "level", "Requests in flight, averaged over the time of the window.",
         "∫ requests in flight dt ÷ window", also=("in flight",), see=("users",)),
    Term("failures", "level", "The share of measured requests that failed, with arrivals that were not sent. "
         "Requests that were given up are in neither side.", "failed ÷ (failed + ok)",
         see=("outcome", "failures (code)")),
    Term("interval", "level", "The 95 % confidence interval of a figure. With an open end, as in (≥591), only the "
         "lower one is known: too few independent requests lie beyond the percentile to bound it from above. The gaps "
         "between tokens (ITL) have none: those of one response depend on each other.", see=("effective n", "marks"),
         also=("confidence interval", "95 % interval", "confidence")),
    Term("effective n", "level", "The number of independent requests that would tell as much as these, which queue "
         "together and share batches.", "n ÷ inefficiency", see=("interval",),
         also=("effective_n", "independent requests")),
    Term("knee", "level", "The lowest load whose output tokens/s no higher load clearly exceeds by more than 5 %, with "
         "the intervals of both counted in: more users only wait longer. Tables mark it with ◄.",
         others=(("queueing textbooks", "saturation point"),),
         see=("output_tokens_per_s", "OVERLOADED"), also=("saturation",)),
    Term("batching", "level", "A server that batches works on the requests of several users at once, and n users wait "
         "less than n times as long as one. Reports say that a server does not batch where the response times prove "
         "it, and how much longer they are than if the requests had queued for a server that takes one at a time.",
         "median E2E at n users ÷ (n × median E2E at 1 user) − 1", others=(("vLLM", "continuous batching"),),
         see=("knee", "e2e"), also=("batch", "does not batch", "over queueing")),
    Term("prefill_tokens_per_s", "level", "Comparison: how fast a side reads a prompt that waits for no other request. "
         "It includes the network and the first token's decoding, so short prompts make it look slower.",
         "mean prompt tokens ÷ TTFT p50", "more than one request was in flight, or prompts came from a cache",
         see=("prefill", "ttft"), also=("prompt tokens per s", "prompt tok/s", "prefill tok/s")),
    Term("decode_tokens_per_s", "level", "Comparison: the output tokens per second that one user sees after the first.",
         "1 ÷ TPOT p50", "TPOT is undefined", see=("decode", "tpot"),
         also=("tok/s/user", "decode tok/s per user")),
    Term("crossover", "level", "Comparison: the number of users from which the other side has more output tokens/s. "
         "Energy and cost per token have crossovers of their own, where the side that takes less changes.",
         "where the ratio, interpolated over the logarithm of users, is 1",
         "neither side is clearly faster at some load and the other at a higher one", see=("worth it",)),

    # Words.
    Term("level", "concept", "One load on one model: warm-up, measured window, cool-down and drain.", see=("window",)),
    Term("window", "concept", "The measured time of a level. Latencies are those of requests that became due in it; "
         "throughput is what happened in it.", see=("warm-up", "drain")),
    Term("warm-up", "concept", "Load before the measurement starts; it continues into it without a pause.",
         see=("short_warm_up",), also=("warmup", "warm up")),
    Term("cool-down", "concept", "Load after the measurement ends, so that its last requests meet the same load as the "
         "others.", see=("window", "drain"), also=("cooldown", "cool down")),
    Term("drain", "concept", "Waiting for the requests in flight after the load ends.", see=("abandoned",)),
    Term("load generator", "concept", "loadbench itself, as opposed to the server: it sends the requests and takes the "
         "timestamps.", see=("lateness", "event loop", "CPU time per event")),
    Term("event", "concept", "A part of a streamed response that the server sends at once: mostly one token.",
         others=(("OpenAI", "chunk"), ("AIPerf", "chunk")), see=("event_gap", "clumped_events"),
         also=("events", "chunk")),
    Term("token", "concept", "A piece of text of a few letters, by the model's own division. Lengths are the server's "
         "counts of them.", see=("usage", "output_tokens_per_s")),
    Term("prefix cache", "concept", "Memory in which a server keeps the work on the beginning of earlier prompts. A "
         "prompt that begins alike has a shorter prefill. loadbench begins each prompt differently (--unique), so that "
         "it does not help by accident.", others=(("vLLM", "automatic prefix caching"), ("llama.cpp", "prompt cache")),
         see=("prefill", "cached_prompts"), also=("prefix caching", "prompt cache")),
    Term("steady", "concept", "Nothing that the server shows changed during the level by more than a fifth: output "
         "tokens/s, TPOT, TTFT, and in an open loop the requests in flight.",
         see=("not_steady", "steadiness_unknown"), also=("steadiness", "steady state")),
    Term("arrivals", "concept", "How the requests of an open loop are spaced (--arrivals): at random, as those of many "
         "independent users are (poisson), at equal distances (constant), or in bursts.", see=("open loop",),
         also=("poisson", "poisson arrivals")),
    Term("trace", "concept", "A file with the times and lengths of real requests, which `loadbench replay` repeats.",
         see=("open loop",)),
    Term("persona", "concept", "A kind of user, with its own lengths, think times and turns (--persona, --mix).",
         see=("users", "think"), also=("personas",)),
    Term("seed", "concept", "The number from which prompts, lengths and arrivals are drawn: the same one gives the "
         "same requests (--seed).", see=("prompt",)),
    Term("patience", "concept", "How long a user waits for a response before giving up (--abandon).", see=("gave_up",)),
    Term("session", "concept", "Of a comparison: one run of one side. Between sessions a machine is faster or slower "
         "by more than within one.", see=("pair", "assumed_drift"), also=("sessions",)),
    Term("drift", "concept", "A slow change of the machine's speed: heat, other work. Comparisons cancel it by "
         "measuring the sides in turns.", see=("common_drift", "unequal_drift", "assumed_drift")),
    Term("Pareto front", "concept", "Of a grid: the cells for which no other cell is at least as good in throughput, "
         "TTFT, memory and energy at the same load, as far as these are known, and surely better in one: none "
         "dominates it. To gain in one of these from there is to lose in another. Where no cell is surely dominated, "
         "it is not known.",
         see=("cell", "marks"), also=("on the Pareto front", "front")),
    Term("users", "concept", "Closed loop: virtual users with at most one request in flight each.",
         others=(("k6", "VUs"), ("vLLM", "--max-concurrency"), ("guidellm", "concurrent"), ("locust", "users")),
         see=("closed loop", "think"), also=("user", "concurrency of users", "virtual users", "vus")),
    Term("think", "concept", "The pause of a virtual user between a response and the next request.", see=("users",),
         also=("think time",)),
    Term("closed loop", "concept", "Each user waits for a response before the next request: a slow server gets less "
         "load.", see=("open loop", "users")),
    Term("open loop", "concept", "Requests come at a rate, however fast the server responds: a slow server gets a "
         "queue.", others=(("vLLM", "--request-rate"), ("wrk2", "-R"), ("k6", "constant-arrival-rate")),
         see=("closed loop", "coordinated omission"), also=("rate",)),
    Term("coordinated omission", "concept", "Leaving out the wait of requests that were due and could not be sent. "
         "loadbench counts it: response latencies count from `due`.", see=("ttft_response", "due")),
    Term("objective", "concept", "A bound on a figure (SLO), as in ttft_p95<1s, decided by its interval: PASS, FAIL or "
         "UNDECIDED.", others=(("k6", "threshold"), ("vLLM", "--goodput")), see=("gate", "goodput"),
         also=("slo", "service level objective", "threshold")),
    Term("gate", "concept", "An objective that decides the exit code (--fail-on): 3 if missed, 5 if not certain.",
         see=("objective",)),
    Term("outcome", "concept", "How one request ended. Every request ends in exactly one.", see=("ok", "failures")),
    Term("capacity", "concept", "The highest load at which every objective holds, with the range that it lies in.",
         see=("proven", "likely", "objective")),
    Term("probe", "concept", "A short level of a capacity search: one measurement at one load. It may end early, once "
         "its requests favour one side. The answer rests on the requests of all probes, so none has a verdict.",
         see=("level", "capacity", "verification")),
    Term("bracketing", "concept", "The first phase of a capacity search: it doubles or halves the load until one probe "
         "leans to PASS and another to FAIL.", see=("probe", "leans to")),
    Term("refining", "concept", "The second phase of a capacity search: it measures the load whose requests narrow the "
         "likely range most.", see=("bracketing", "likely")),
    Term("leans to", "concept", "Of a probe: its requests favour PASS or FAIL, without a proof.", see=("proven",),
         also=("lean", "leans to PASS", "leans to FAIL")),
    Term("scaled", "concept", "Of a capacity: computed from the measured one for another think time.",
         see=("capacity",)),
    Term("fingerprint", "concept", "The beginning of a hash of a run's settings: runs that have the same one measured "
         "under the same settings."),
    Term("outliers", "concept", "Single responses far beyond all others: more than 14.8 standard deviations from the "
         "median. Something else than the load happened there.", also=("outlier",)),
    Term("verification", "concept", "The last probes of a capacity search: each measures the low end of the likely "
         "range, to see whether it meets the objectives. Where that moves the end, the next one is measured there.",
         see=("probe", "likely"), also=("verified",)),
    Term("proven", "concept", "Of a capacity: shown by the search's tests, whatever the curve.", see=("likely",)),
    Term("likely", "concept", "Of a capacity: by a curve fitted to all requests, verified by a final measurement.",
         see=("proven",)),
    Term("prefill", "concept", "Processing the prompt, before the first token. It decides TTFT.",
         see=("decode", "ttft")),
    Term("decode", "concept", "Generating tokens, one after another. It decides TPOT.", see=("prefill", "tpot")),
    Term("depth", "concept", "How long the prompts are, in tokens: how deep in the context generating begins. A grid "
         "that varies `input_tokens` shows prefill and decode by it.", see=("prefill", "decode", "cell"),
         others=(("llama-bench", "depth (-d)"),)),
    Term("running", "concept", "Requests that the server works on, as the server itself reports it.",
         see=("queued", "slots")),
    Term("queued", "concept", "Requests that wait in the server until it works on them, as it reports itself.",
         see=("running", "server_queue"), also=("waiting",)),
    Term("cold", "concept", "The first request to a model, which may have to be loaded or to set up its caches. "
         "A report shows its TTFT as cold, and that of a second one as warm.", see=("ttft",),
         also=("warm", "cold start")),
    Term("worth it", "concept", "Comparison: the speed-up is surely larger than the factor by which energy and cost "
         "per token are higher, as far as these are known. Where neither is known, a report says only who is faster.",
         see=("crossover",)),
    Term("precision", "concept", "Of a capacity search (--precision): how narrow the range of the answer must be "
         "before the search ends.", see=("capacity", "likely")),
    Term("headroom", "concept", "The share of a server's capacity that is kept free when the number of servers is "
         "worked out (--headroom).", see=("capacity",)),
    Term("cell", "concept", "One combination of the values that --vary gives: a sweep of its own, and a row in the "
         "report of the grid.", see=("level",), also=("grid",)),
    Term("repeat", "concept", "Of a comparison: both sides measured once at every load. Each side has one turn in it, "
         "or, where both are up, one block for each load.", see=("pair",), also=("repeats",)),
    Term("turn", "concept", "Of a comparison with one side up at a time: all loads of one side in a row, after its "
         "start.", see=("repeat",), also=("turns",)),
    Term("block", "concept", "Of a comparison: one side measured at one load in one repeat.",
         see=("repeat", "pair"), also=("blocks",)),
    Term("pair", "concept", "Of a comparison: the runs of both sides at one load in one repeat. It counts only if both "
         "do; the interval of a ratio comes from how much pairs differ.", see=("repeat",), also=("pairs",)),
    Term("above idle", "concept", "Energy for each output token without what the machine draws when it is idle.",
         see=("tok/s/W",)),
    Term("tok/s/W", "concept", "Output tokens per second for each watt, which is output tokens per joule.",
         see=("above idle",)),
    Term("profile", "concept", "How fast the simulated server is and how many requests it works on at once "
         "(--profile).", see=("slots",)),
    Term("CPU time per event", "concept", "Processor time of the load generator for each event that it read. It is "
         "part of no latency; a rise from run to run means that loadbench or its machine became slower.",
         see=("lateness",)),
    Term("event loop", "concept", "The part of the load generator that sends requests and reads responses, one after "
         "another. It lags where it has no core: other programs use the machine, or there is too much load for it.",
         see=("loop_lag", "late_reads", "late_start")),
    Term("slots", "concept", "How many requests a server works on at once; further ones wait in its queue.",
         others=(("vLLM", "--max-num-seqs"), ("llama.cpp", "--parallel"))),
    Term("timestamp", "concept", "The moment when bytes arrived. On Linux the kernel's, so that a busy load generator "
         "does not make latencies longer.", see=("late_reads",), also=("stamp",)),
    Term("usage", "concept", "The server's own count of tokens in a response.", see=("unknown_tokens",)),

    # Verdicts.
    Term("VALID", "status", "No condition holds that makes the measurement doubtful: its figures can be used. `VALID "
         "?`: it was too short to see whether the server was steady.", also=("VALID ?",)),
    Term("INVALID", "status", "The measurement is at fault, or the server does not work: the figures decide nothing. "
         "A capacity search decides by its objectives instead: there a probe counts, however late loadbench was, "
         "unless that could have changed the result.",
         remedy="see the reason and its advice; the sweep exits with 4"),
    Term("OVERLOADED", "status", "The measurement is sound, and the server was beyond its limit: waiting times there "
         "have no end.", remedy="use a lower load; the level shows where the limit is", see=("knee", "not_steady")),
    Term("INCONCLUSIVE", "status", "Too little was measured to decide.", remedy="measure longer, or more requests",
         see=("too_few_answers", "undecided")),

    # Codes of verdicts.
    Term("no_answers", "code", "No measured request got a response.",
         remedy="`loadbench doctor --url URL` finds the cause"),
    Term("interrupted", "code", "The level was stopped before its end, or the run was killed or is still running.",
         remedy="continue it with --resume DIR"),
    Term("aborted", "code", "An --abort-on rule ended the level.", remedy="lower the load, or change the rule"),
    Term("server_ended", "code", "The server that loadbench had started ended by itself: it crashed, or was killed.",
         remedy="see server.log in the run folder, and continue the run with --resume DIR"),
    Term("lost_worker", "code", "One of the load generator's processes ended before the level did.",
         remedy="see the system's log (out of memory?), and measure again"),
    Term("client_limit", "code", "Requests were not sent: this machine had no descriptor, port or memory left.",
         remedy="raise ulimit -n, widen ip_local_port_range, or add --source-address"),
    Term("server_stopped", "code", "From some moment on, no request succeeded until the end of the level.",
         remedy="see the server's log at that moment"),
    Term("server_restarted", "code", "One of the server's counters fell, or its counters disappeared.",
         remedy="find out why the server restarted, and measure again"),
    Term("missed_arrivals", "code", "Open loop: a scheduled request was not sent.",
         remedy="raise --max-in-flight, or reduce the rate"),
    Term("rate_not_reached", "code", "Open loop: fewer than 99 % of the scheduled requests were sent.",
         remedy="raise --max-in-flight or --workers, or reduce the rate"),
    Term("short_warm_up", "code", "The warm-up was shorter than the median E2E: the load was not yet steady.",
         remedy="use a longer --warm-up"),
    Term("not_steady", "code", "Output tokens/s, TPOT or TTFT changed during the level, or in an open loop the "
         "requests in flight grew.", remedy="warm up longer; where requests grew, the rate is above capacity",
         see=("OVERLOADED",)),
    Term("late_start", "code", "The load generator sent requests late: in an open loop 1 request in 100 by more than "
         "5 % of the median ITL, in a closed loop by more than 2 % of a user's cycle on average; less than 1 ms counts "
         "in neither.", remedy=_GENERATOR, see=("lateness", "event loop")),
    Term("loop_lag", "code", "The load generator read late, and timestamps are taken at the read (not on Linux, or "
         "with --transport httpx): 1 read in 100 was later than 1 ms and than 5 % of the median ITL.",
         remedy=_GENERATOR, see=("event loop", "lateness")),
    Term("stood_still", "code", "The load generator, or the whole machine, stood still for more than 2 s.",
         remedy="keep the machine from sleeping, and measure again"),
    Term("clock_step", "code", "The wall clock was set during the level.", remedy="measure again"),
    Term("late_first_tokens", "code", "So many first tokens were read after a later one that TTFT may be too long.",
         remedy=_GENERATOR, see=("timestamp",)),
    Term("late_reads", "code", "More than 0.5 % of events were read so late that they got a later one's timestamp, "
         "or several that the server sent apart came in one read of an event loop that lagged. The reason says whether "
         "other programs probably kept loadbench waiting, or whether loadbench itself was too slow.",
         remedy=_GENERATOR, see=("timestamp", "event loop")),
    Term("protocol", "code", "A response could not be parsed.", remedy="see the failures in the report, and --api"),
    Term("unread_frames", "code", "More than 1 % of good responses had frames that are no part of a response.",
         remedy="see the quotation in the report"),
    Term("unknown_tokens", "code", "For more than 1 % of responses the number of tokens is unknown.",
         remedy="let the server report usage (stream_options.include_usage)"),
    Term("impossible_usage", "code", "The usage of more than 1 % of responses cannot be true.",
         remedy="report it to the server's developers; latencies can be used"),
    Term("cached_prompts", "code", "More than 1 % of prompts came partly from the server's prefix cache.",
         remedy="leave --unique on, or use another --seed"),
    Term("failures (code)", "code", "The share of failed requests is above --failures (1 %).",
         remedy="fix what the failures say first: those that succeed are a selection", see=("failures",)),
    Term("other_model", "code", "Responses carry the name of another model that the server lists.",
         remedy="check --model and the server's routes"),
    Term("busy_machine", "code", "Other programs used more than half of this machine's CPU, and the server or "
         "loadbench waited for a core: a reason of the verdict where they waited for long, else a note.",
         remedy="end the other programs, or measure when the machine is idle"),
    Term("audit", "code", "The self-audit failed: a number that is counted in two ways differs.",
         remedy="this is a bug in loadbench: please report it with the run folder"),
    Term("undecided", "code", "A gate is neither certainly met nor certainly missed. In the table of a comparison: the "
         "interval of the ratio shows neither that B differs nor that it is about equal.",
         remedy="measure longer, or decide with --undecided pass|fail; a comparison: measure more repeats",
         see=("gate", "faster", "PASS")),
    Term("imported", "code", "Another tool measured the level: how late its client was is not known, so the level is "
         "INCONCLUSIVE.", remedy="measure with loadbench to have a verdict"),
    Term("too_few_answers", "code", "There are fewer responses than users, or than 20.", remedy="measure longer"),
    Term("too_few_stayed", "code", "Users gave up, and fewer than 20 complete responses are left.",
         remedy="measure longer, or lower the load"),

    # Caveats.
    Term("steadiness_unknown", "caveat", "Too little was measured to know whether the server was steady.",
         remedy="measure as long as the advice says"),
    Term("start_skew", "caveat", "The workers that share the load began at moments that are apart, or whose clocks are "
         "hardly known.", remedy="see that no worker's machine is busy, and how fast the network between them is"),
    Term("fewer_workers", "caveat", "A worker had ended in an earlier level, or while this one was prepared: the "
         "others made its load.", remedy="see the system's log (out of memory?)"),
    Term("log_incomplete", "caveat", "A worker was lost while its requests were gathered: requests.jsonl lacks some, "
         "and the figures do not.", remedy="measure again if the single requests matter"),
    Term("prompt_length", "caveat", "Prompts are longer or shorter, by the server's count, than what was requested."),
    Term("rebuilt", "caveat", "The level was put together from requests.jsonl, since the run was killed."),
    Term("assumed_tokens", "caveat", "The server reported no count, and one token per event was assumed.",
         remedy="let the server report usage (stream_options.include_usage)"),
    Term("usage_not_understood", "caveat", "There was a usage object without a known count of the output."),
    Term("hidden_tokens", "caveat", "Usage counts tokens that no event showed: TTFT is that of the first token shown."),
    Term("uncounted_tokens", "caveat", "The total counts tokens that are neither prompt nor output."),
    Term("fewer_tokens_than_events", "caveat", "Usage counts fewer tokens than events with text."),
    Term("cut_short", "caveat", "Responses ended with `length` before their --max-tokens.",
         remedy="give the server a longer context, or send shorter prompts"),
    Term("cached_by_counter", "caveat", "More than 5 % of prompt tokens came from the prefix cache by the server's "
         "counter.", remedy="use another --seed"),
    Term("limit_ignored", "caveat", "Responses are longer than requested."),
    Term("delayed_acknowledgements", "caveat", "A server without TCP_NODELAY holds the first token back for 40 ms or "
         "more.", remedy="set TCP_NODELAY at the server"),
    Term("clumped_events", "caveat", "The server, or a proxy, sent more than 5 % of the events together with the next "
         "one: their spacing is unknown. The verdict does not depend on it: TTFT, TPOT, E2E and tok/s hold; ITL and "
         "gaps are those between the server's writes.",
         remedy="turn buffering off in the proxy (nginx: proxy_buffering off), give the process that writes the "
         "responses a core of its own"),
    Term("preemptions", "caveat", "The KV cache was too small: work was done twice.",
         remedy="give the server more memory for its KV cache, or fewer users"),
    Term("lengths_not_kept", "caveat", "With --exact-output, responses have another length than requested."),
    Term("generated_unread", "caveat", "The server went on generating for users who had left."),
    Term("filtered", "caveat", "A content policy cut responses."),
    Term("content_type", "caveat", "Responses had a Content-Type that is not that of their bytes, which decide how "
         "they are read.", remedy="let the server declare a stream as one: other clients may refuse it"),
    Term("model_name", "caveat", "Responses name another model, which may be an alias, a deployment or a router.",
         remedy="make sure that it is the model to be measured", see=("other_model",)),
    Term("uneven_servers", "caveat", "Of several servers, these clearly fail more, or are clearly more than 1.5 times "
         "as slow as the others.", remedy="see the figures by server, and that server's log"),
    Term("reconnects", "caveat", "The server had closed idle connections, and they were replaced.", see=("connect",)),
    Term("planned_course", "caveat", "The rate changed as planned, so whether the server was steady cannot be judged."),
    Term("cpu_fallback", "caveat", "The model is named after a GPU, and no GPU was in use.",
         remedy="see the server's log: a driver or an execution provider may be missing"),
    Term("throttled_heat", "caveat", "Heat throttled a GPU's clocks for more than 5 % of the window.",
         remedy="cool the machine"),
    Term("throttled_power", "caveat", "The power limit throttled a GPU's clocks for more than 5 % of the window.",
         remedy="raise its power limit, or note it with the result"),
    Term("throttled_cpu", "caveat", "Heat throttled the processor during the level.", remedy="cool the machine"),
    Term("on_battery", "caveat", "The machine of the server ran on its battery, on which most are slower.",
         remedy="plug it in, or note it with the result", see=("power_saving",)),
    Term("power_saving", "caveat", "Settings of the server's machine save power: a profile, a mode, a governor, or a "
         "limit of the clock.", remedy="choose the fastest power mode, or note it with the result",
         see=("on_battery",)),
    Term("unmetered", "caveat", "The only meters are those of GPUs that the server did not use: its energy is unknown.",
         remedy="state what the machine draws with --watts"),
    Term("process_restarted", "caveat", "The server's process ended during the level, and another one replaced it.",
         remedy="see the server's log, and measure again"),
    Term("server_contradicts", "caveat", "The server reports a longer time to the first token than was measured."),

    # Caveats that only comparisons have.
    Term("assumed_drift", "caveat", "Comparison: too few sessions to show how much the machine's speed varies between "
         "sessions, so a variation was assumed.", remedy="measure several sessions of each side, or both in pairs"),
    Term("recomputed", "caveat", "Comparison: its file was saved by an older version, whose rules decide otherwise. "
         "Everything is computed again from the stored levels; the file stays as it is."),
    Term("not_in_turns", "caveat", "Comparison: the sides were measured one after the other, so a change in the "
         "meantime may be what differs.", remedy="measure both in turns: loadbench compare with two URLs does"),
    Term("same_device", "caveat", "Comparison: the sides are meant for two devices, and ran on one.",
         remedy="see the servers' logs: one may have fallen back to the CPU", see=("cpu_fallback",)),
    Term("devices_alike", "caveat", "Comparison: the sides are on two devices, and equally fast: one may not be used.",
         remedy="see the servers' logs", see=("same_device",)),
    Term("same_run", "caveat", "Comparison: a run is on both sides.", remedy="name different runs for the two sides"),
    Term("same_target", "caveat", "Comparison: both sides are the same server and model.",
         remedy="this is right if the server was changed between the runs"),
    Term("mixed_side", "caveat", "Comparison: one side has runs of several servers.",
         remedy="name runs of one server for each side"),
    Term("seeds", "caveat", "Comparison: the sides used different seeds, so their prompts differ.",
         remedy="use the same seeds"),
    Term("versions", "caveat", "Comparison: the sides were measured with different versions of loadbench.",
         remedy="measure both with the same version"),
    Term("incomplete", "caveat", "Comparison: runs were stopped before their end.",
         remedy="leave them out, or measure again"),
    Term("finish_reasons", "caveat", "Comparison: more responses of one side ended at the length limit.",
         remedy="use --exact-output, or a length that both sides reach"),
    Term("token_source", "caveat", "Comparison: the tokens of the sides were counted in different ways.",
         remedy="let both servers report usage", see=("usage",)),
    Term("two_models", "caveat", "Comparison: the sides have different models, whose tokens are different amounts of "
         "text and work.", remedy="compare E2E of equivalent responses, and their quality"),
    Term("two_variants", "caveat", "Comparison: the sides have different variants of one model.",
         remedy="compare their quality as well: loadbench score"),
    Term("servers", "caveat", "Comparison: the sides have different numbers of servers that share the load.",
         remedy="this is right if that is what you compare"),
    Term("settings", "caveat", "Comparison: the sides were measured with different settings.",
         remedy="measure both with the same settings"),
    Term("settings_within", "caveat", "Comparison: the runs of one side differ in their settings.",
         remedy="name runs with the same settings on each side"),
    Term("adapted", "caveat", "Comparison: a field was sent to one side alone, because the other refuses it.",
         remedy="measure both without it: --extra-body '{\"FIELD\": null}'"),
    Term("stamp_source", "caveat", "Comparison: arrivals were timestamped in different ways.",
         remedy="measure both with the same load generator", see=("timestamp",)),
    Term("host", "caveat", "Comparison: the load generators ran on different machines.",
         remedy="measure both with the same load generator"),
    Term("cpu", "caveat", "Comparison: the load generators had different processors.",
         remedy="measure both with the same load generator"),
    Term("load_from", "caveat", "Comparison: different workers made the load of the sides: another number, or those of "
         "another cluster.",
         remedy="measure both with the same --workers, on the same machines"),
    Term("simulated", "caveat", "Comparison: one side is the simulated server, and the other is not.",
         remedy="compare two real servers, or two simulated ones"),
    Term("cached", "caveat", "Comparison: parts of prompts came from a server's prefix cache.",
         remedy="keep --unique on, unless a warm cache is what you compare", see=("cached_prompts",)),
    Term("energy_sources", "caveat", "Comparison: the joules of the sides come from different meters.",
         remedy="measure both sides with the same meters, or at the wall"),
    Term("energy_estimate", "caveat", "Comparison: joules are an estimate from --watts, whose error is in no interval.",
         remedy="measure the power"),
    Term("max_tokens_ignored", "caveat", "Comparison: a side gave more tokens than it was limited to.",
         remedy="let it obey max_tokens, or compare time per token only"),
    Term("ends_early", "caveat", "Comparison: a side ended its first response by itself, before the requested length.",
         remedy="use --exact-output, or compare time per token"),
    Term("common_drift", "caveat", "Comparison: both sides became faster or slower over the repeats.",
         remedy="the order of turns cancels this; check whether the machine is hot, or busy with other work"),
    Term("unequal_drift", "caveat", "Comparison: the ratio of the sides changed over the repeats.",
         remedy="warm up both sides for longer, then compare again"),
    Term("until_reached", "caveat", "Comparison: the ratio is known as closely as --until asks."),
    Term("until_not_reached", "caveat", "Comparison: the ratio is not known as closely as --until asks.",
         remedy="allow more --repeats and --budget, or measure each level for longer"),

    # Why a comparison leaves a figure or a level out.
    Term("one_side", "caveat", "Not compared: only one side has this level.", remedy="measure both at the same loads"),
    Term("missing", "caveat", "Not compared: the level is not in every run.",
         remedy="name runs with the same levels, or measure again"),
    Term("other_prompts", "caveat", "Not compared: the sides were sent other prompts, so only time per token is.",
         remedy="send both sides the same prompts"),
    Term("prompt_lengths", "caveat", "Not compared: the prompts of the sides differ in length, so only time per token "
         "is.", remedy="send both sides the same prompts"),
    Term("other_lengths", "caveat", "Not compared: responses of another length were requested, so that figures of "
         "whole responses differ by that.", remedy="use the same --max-tokens"),
    Term("answer_lengths", "caveat", "Not compared: the responses of the sides differ in length, so that figures of "
         "whole responses differ by that.", remedy="use --exact-output"),
    Term("currencies", "caveat", "Not compared: the prices of the sides are in different currencies.",
         remedy="give both in one --currency"),
    Term("no_samples", "caveat", "Not compared: a run does not have this figure at all. A gate on it fails.",
         remedy="for tokens, let the server report usage; for energy, give --watts where there is no meter"),
    Term("too_few_requests", "caveat", "Not compared: too few requests for this percentile and its interval.",
         remedy="measure longer, or more often"),

    # Caveats that only predictions of a capacity have.
    Term("left_out", "caveat", "Prediction: levels were not used, because they are INVALID or have think times.",
         remedy="see the reasons of these levels"),
    Term("shared_evenly", "caveat", "Prediction: the model assumes that the server shares itself evenly among all "
         "requests in flight.", remedy="measure at the predicted number of users, with the think time"),
    Term("wide_steps", "caveat", "Prediction: two neighbouring levels are far apart.",
         remedy="measure a level in between"),
    Term("no_single_user", "caveat", "Prediction: one user alone was not measured.", remedy="measure users=1 as well"),
    Term("interactive_law", "caveat", "Prediction: users divided by throughput is not the response time, so a level "
         "was not steady.", remedy="measure for longer, after a longer warm-up"),
    Term("not_monotone", "caveat", "Prediction: a busier server served requests better, by more than chance.",
         remedy="check whether the server caches, warms up or wakes up, and measure again"),

    # Outcomes.
    Term("ok", "outcome", "A response with text and a known good end."),
    Term("http_error", "outcome", "A status other than 200.", remedy="the detail has the server's words"),
    Term("stream_error", "outcome", "An error inside a 200 response.", remedy="the detail has the server's words"),
    Term("truncated", "outcome", "The stream ended without a finish_reason and without [DONE], or broke.",
         remedy="see the server's log, and proxies in between"),
    Term("empty", "outcome", "A clean end without one token."),
    Term("endless", "outcome", "Far longer than requested: the connection was closed."),
    Term("refused", "outcome", "No connection: refused, unknown host, or TLS failed.", remedy="check --url"),
    Term("reset", "outcome", "The connection broke before the response was complete."),
    Term("timeout_connect", "outcome", "No connection within --connect-timeout."),
    Term("timeout_first_token", "outcome", "No token within --first-token-timeout."),
    Term("timeout_idle", "outcome", "Nothing more came within --idle-timeout."),
    Term("timeout_total", "outcome", "Not finished within --timeout."),
    Term("cancelled", "outcome", "Cut by the user, or by a search that has measured enough. It is no failure."),
    Term("abandoned", "outcome", "Still running at the end of the drain.", remedy="use a longer --drain"),
    Term("gave_up", "outcome", "Its user lost patience and disconnected (--abandon). It is no failure."),

    # Columns of tables, as far as they have no other term.
    Term("load", "column", "How much is sent: `users=N` in a closed loop, `rate=N` requests per second in an open one.",
         see=("users", "open loop"), also=("loads", "probe at", "load without think time")),
    Term("verdict", "column", "Whether the figures of a level can be used. `VALID 2/3`: of a cell's 3 levels 2 are "
         "VALID; `3 VALID` counts the levels of a run.", see=("VALID", "INVALID", "OVERLOADED", "INCONCLUSIVE"),
         also=("verdicts", "valid levels")),
    Term("failed", "column", "Measured requests that failed; in a comparison their share.",
         see=("failures", "outcome"), also=("count",)),
    Term("responses", "column", "Requests that were answered completely, or figures of such requests.",
         see=("ok",), also=("response", "responses/s", "request", "requests", "n")),
    Term("median", "column", "p50 is the value that half of all values do not exceed, p95 the one that 95 % do not "
         "exceed; mean is their average, min and max the ends.",
         also=("percentile", "p50", "p90", "p95", "p99", "p99.9", "mean", "min", "max", "median response time")),
    Term("server CPU", "column", "Processor time of the server's processes in the window, in cores: 2.00 cores are two "
         "that never rest.", see=("host CPU", "server RSS")),
    Term("server RSS", "column", "The most main memory that the server's processes had (resident set size), those of a "
         "command of --server-cmd all together. Shared pages count in each. Memory on a GPU is not in it.",
         see=("server CPU", "GPU mem"), also=("RSS", "memory", "server memory")),
    Term("host CPU", "column", "The share of the machine's processor time that all programs used.",
         see=("server CPU", "busy_machine")),
    Term("GPU", "column", "How busy each GPU was on average: the share of the time in which it worked on anything.",
         see=("GPU mem",), also=("NPU", "GPU use", "NPU use")),
    Term("GPU mem", "column", "The most memory of each GPU that was in use; of some, by all programs together.",
         see=("server RSS",), also=("GPU memory",)),
    Term("power", "column", "What was drawn in the window, on average, as far as there are meters; `est.`: stated with "
         "--watts and not metered.", see=("J/token",)),
    Term("J/token", "column", "Energy for each output token: what was drawn in the window, divided by the tokens that "
         "arrived in it.", "joules ÷ output tokens", see=("above idle", "power"),
         also=("joules per output token", "energy")),
    Term("per 1M tok", "column", "What a million output tokens cost at this load: electricity, and the purchase spread "
         "over its years, as far as prices are given.", see=("J/token",),
         also=("cost per million output tokens", "cost")),
    Term("KV use", "column", "The share of the server's memory for the KV cache that was in use, as it reports.",
         see=("preemptions",), also=("kv cache",)),
    Term("A", "column", "Comparison: the first side, and B the second. Ratios are B over A.", see=("B/A", "B is"),
         also=("B", "side")),
    Term("B/A", "column", "Comparison: the figure of B divided by that of A, and its interval.",
         see=("interval", "B is"), also=("B/A at", "change", "ratio")),
    Term("B is", "column", "Comparison: whether the interval shows B to be faster or slower than A, for energy, cost "
         "and failures better or worse; `undecided` and `no difference` if it shows neither.",
         see=("faster", "B/A"), also=("it is",)),
    Term("decision", "column", "What the requests say about an objective or a gate; of a probe, what they lean to.",
         see=("PASS", "leans to")),
    Term("plan with", "column", "The low end of the range of a capacity: as many users are likely to be served well.",
         see=("capacity", "likely range", "best estimate"), also=("plan with (users)", "plan with (requests/s)")),
    Term("best estimate", "column", "The capacity that fits all requests best; as likely too high as too low. "
         "There the fitted curve, a median, falls to the share of requests that is needed.",
         see=("plan with",), also=("estimated", "estimated (search)")),
    Term("likely range", "column", "The range in which the capacity lies, by a curve fitted to all requests.",
         see=("likely", "plan with"), also=("its range", "scaled range")),
    Term("limit lower", "column", "How likely the capacity is below this load, by the curves fitted to all requests: "
         "what is risked by planning with it. The low end of the likely range has 2.5 % at most.",
         see=("likely range", "plan with"),
         also=("what it is", "plan with it", "passed, unproven", "end of the range", "fitted curve")),
    Term("proven range", "column", "The range in which the capacity lies, by tests that need no curve.",
         see=("proven",), also=("claim", "what it says")),
    Term("predicted", "column", "By a queueing model that knows only the loads without think time.", see=("scaled",),
         also=("predicted (queueing model)", "predicted by a queueing model", "limited by")),
    Term("phase", "column", "What a search had a probe for: bracketing, refining, test, repeat test, verification.",
         see=("bracketing", "refining", "test", "verification"), also=("phases", "step", "steps")),
    Term("test", "column", "The phase of a capacity search that measures loads below and above the estimate until they "
         "are proven to pass or to fail; a repeat test measures an end again.", see=("proven", "phase"),
         also=("repeat test",)),
    Term("bottleneck", "column", "What limits the server: prefill, decode, slots, memory or its queue; `client`: the "
         "load generator was the limit. The server's speed: twice as many requests at once would hardly raise "
         "throughput, and neither prefill nor decode takes most of the time.", see=("slots", "capacity")),
    Term("measured", "column", "How long the measured window is, or was; `measured (verification)`: the share of its "
         "requests that met an objective.", see=("window", "verification"),
         also=("measured for", "measured (verification)", "time", "time on each side")),
    Term("order by repeat", "column", "Comparison: which side is measured first in each repeat; both orders are "
         "equally frequent, so that a slow change of the machine cancels.", see=("repeat", "turn")),
    Term("mark", "column", "Of `loadbench try`: the timestamp that the line is of. In a grid: whether the cell is the "
         "best one.", see=("due", "marks"), also=("at (ms)", "step (ms)", "timeline", "seen")),
    Term("from", "column", "Where a setting comes from: a flag, a variable, the scenario file, or the default.",
         also=("setting", "value", "flag", "variable", "origin")),
    Term("run", "column", "What one command measured and saved: a folder with its settings and results; `label` and "
         "`commit` say of what it is.", see=("level",),
         also=("runs", "command", "result", "labels", "commit", "started", "files", "size")),
    Term("model", "column", "The model as the server names it, its name at the provider (alias), its version, license, "
         "device and context length.",
         also=("id", "alias", "provider", "device", "version", "license", "context", "disk", "loaded")),
    Term("figure", "column", "What was measured; `here` is loadbench's value next to that of another tool.",
         also=("unit", "here", "in run.json", "tool", "its name", "error")),
    Term("note", "column", "Why it is so, and what to do.", also=("why", "what to do", "remark", "remarks", "at",
         "what the server or the network said")),
    Term("check", "column", "What `loadbench doctor` looked at.", see=("warn",)),
    Term("budget", "column", "The most time that a command may take (--budget).",
         also=("part of the budget", "searched from")),
    Term("prompt", "column", "What is sent: its length in tokens, a hash of its text, and its beginning.",
         see=("prefill",), also=("prompts", "prompt tokens", "tokens", "hash", "text")),
    Term("Jain", "column", "Jain's index of fairness over users: 1 if all had the same, 1/n if one of n had all; with "
         "its 95 % interval.", others=(("queueing textbooks", "Jain's fairness index"),), see=("starved",),
         also=("Jain responses", "Jain responses 95 %", "Jain TTFT", "Jain TTFT 95 %")),
    Term("starved", "column", "Users who clearly got fewer than half the responses of the median user.",
         see=("Jain",)),
    Term("facets", "column", "What a response is rated by, from 1 to 5: coherence, factuality, brevity, and what its "
         "prompt asks for (own facets). `facets found` are expected words that are in it.",
         also=("facet", "facets found", "own facets", "coherence", "factuality", "brevity", "rater", "rated by",
               "quality", "95 %")),
    Term("score", "column", "Of `loadbench select`: the weighted mean of a model's figures, each relative to the best.",
         see=("facets",)),
    Term("load warm", "column", "How long a model took to load that had been loaded before; load cold: the first time.",
         see=("cold",), also=("load cold",)),
    Term("Avg Latency (s)", "column", "The workshop's name for the mean E2E; its other columns are named likewise.",
         see=("e2e",), also=("Rounds", "Tokens/sec", "First Token (s)", "p95 (s)")),

    # States and decisions.
    Term("PASS", "state", "The whole interval is within the bound of an objective or a gate: it is met. FAIL: it is "
         "wholly beyond it. UNDECIDED: the bound lies inside it.",
         remedy="if undecided, measure longer", see=("objective", "gate", "undecided"),
         also=("FAIL",)),
    Term("unclear", "state", "Of a probe: its requests are too few to favour PASS or FAIL, or nearly as many miss as "
         "are allowed. Without a miss it takes about 10 requests for a p90, 20 for a p95 and 100 for `failures<1%`.",
         see=("leans to",)),
    Term("faster", "state", "Comparison: the interval of the ratio excludes 1, so that B differs. `no difference`: "
         "it includes 1, and lies between 0.5 and 2. `undecided`: there is no interval, it includes 1 and reaches 0.5 "
         "or 2, or a note says why it decides nothing.",
         remedy="if undecided, measure more repeats, each with VALID levels", see=("B is", "pair"),
         also=("slower", "better", "worse", "no difference", "more", "fewer")),
    Term("found", "state", "Of a capacity search: it has an answer. `at least`: the highest allowed load met the "
         "objectives (raise --at-most). `none`: not even the lowest load did. `inconclusive`: too little was measured. "
         "`client`: the load generator was the limit.", see=("capacity",),
         also=("at_least", "none", "client", "estimate", "agrees", "contradicts", "answer", "status")),
    Term("complete", "state", "Of a run or a cell: all was measured. `running`: it is being measured. `planned`: not "
         "yet. `interrupted`: stopped before its end, `--resume` goes on. `empty`: no level. `damaged`: it cannot be "
         "read.", see=("interrupted",), also=("planned", "damaged", "not measured", "not searched", "not finished")),
    Term("warn", "state", "Of `loadbench doctor`: measuring is possible, but what the line says may change "
         "the results. `fail`: measuring is not possible. `skip`: not checked.", see=("check",), also=("skip",)),
    Term("marks", "column", "Signs beside figures. ±: half the width of the 95 % interval. (9.8–141): its two ends, "
         "where its middle is more than 5 % from the value. (≥591): its lower end, where nothing bounds it from above. "
         "~: too few independent requests to know this percentile to 10 %. ◄: the knee. ?: it is unknown whether the "
         "server was steady. ±?: no interval. *: a note below says why. +: files had changed since the commit. In a "
         "grid ★: surely the best cell, ≈: may be the best, ◆: on the Pareto front.",
         remedy="if ~, measure as long as the note below the table says", see=("interval", "knee", "VALID"),
         also=("±", "(low–high)", "(≥low)", "~", "≥", "◄", "?", "±?", "*", "+", "★", "≈", "◆")),
)
# fmt: on


# More words that may be meant are a list, and no question.
_MOST_MEANT = 6


def find_term(text: str) -> Term:
    """The term of this name, in any case, with or without a unit, a percentile or hyphens; or some of its words.

    Raises `BadInput` for an unknown one, with what was probably meant.
    """
    known: dict[str, Term] = {}
    for term in TERMS:
        for name in (term.name, *term.also):
            known.setdefault(_plain(name), term)
    word = _plain(text)
    shorter = word.partition("<")[0].partition(">")[0]
    for ending in ("", "s", " p50", " p90", " p95", " p99", " p999", " mean", " max", " min"):
        for part in (word, shorter):
            name = part.removesuffix(ending) if ending else part
            for candidate in (name, name.removesuffix(" s")):
                if candidate in known:
                    return known[candidate]
    # One word of a name is enough, where it is in those of one term only.
    parts = {term.name: term for name, term in known.items() if set(word.split()) <= set(name.split())}
    if len(parts) == 1 and word:
        return next(iter(parts.values()))
    if 1 < len(parts) <= _MOST_MEANT:
        raise BadInput(f"{text:.60}: an unknown word", hint=f"did you mean one of: {', '.join(parts)}?")
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.75)
    hint = "`loadbench explain` lists the words"
    raise BadInput(f"{text:.60}: an unknown word", hint=f"did you mean {known[near[0]].name}? {hint}" if near else hint)


def alike(term: Term) -> str:
    """What the other words are that lead to it: those of columns and states are not the same, but explained here."""
    return "also explains" if term.kind in {"column", "state"} else "also called"


def term_document(term: Term) -> Document:
    """What a term means."""
    rows = [
        (name, value)
        for name, value in (
            ("formula", term.formula),
            ("undefined if", term.undefined),
            ("what to do", term.remedy),
            (alike(term), ", ".join(term.also)),
        )
        if value
    ]
    blocks: list[Heading | Text | Notes | Table] = [Text([term.text]), Table([], rows, "ll")]
    if term.others:
        blocks += [Heading("In other tools"), Table(["tool", "its name"], list(term.others), "ll")]
    if term.see:
        blocks.append(Text([f"See also: {', '.join(term.see)}"]))
    return Document(f"{term.name} ({KINDS[term.kind][0]})", blocks)


def terms_document() -> Document:
    """All terms by kind, with the first sentence of their text."""
    blocks: list[Heading | Text | Notes | Table] = []
    for kind, (_, title) in KINDS.items():
        rows = [(term.name, term.text.partition(". ")[0].rstrip(".")) for term in TERMS if term.kind == kind]
        blocks += [Heading(title), Table([], rows, "ll")]
    return Document("`loadbench explain WORD` explains one of these", blocks)


def _plain(text: str) -> str:
    return " ".join(text.strip().lower().replace("_", " ").replace("-", " ").split())
