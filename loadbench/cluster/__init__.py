"""Workers on other machines: the processes of `loadbench.engine.worker`, started by actors on the nodes of a cluster.

Ray gives what a cluster needs: nodes, placement, calls, the end of what a lost node had. There is no protocol of our
own. Only this package imports ray, and only once a cluster is used.
"""
