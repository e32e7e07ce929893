"""Parse the arguments, compose the configuration, run a command, and return an exit code.

From the entry point on:

    main       the entry point: from arguments to an exit code
    words      arguments in an order that Hydra accepts, and messages on stderr
    commands   the table of commands
    loader     Hydra's configurations, from files that are read once
    sweeps     what happens before and after the cells of a sweep
    launching  cells in other processes, and what happens if one of these dies
    workers    which of these processes have died
    faults     operating system errors as one line
"""
