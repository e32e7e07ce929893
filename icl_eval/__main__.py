"""`python -m icl_eval` is `icl-eval`."""

from icl_eval.cli.main import main

if __name__ == "__main__":
    main()
