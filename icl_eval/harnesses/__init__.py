"""Other harnesses: this package as a model of theirs, their tasks as tasks of ours, and their result files.

What belongs to one library stands in one place here, and is imported only when it is asked for: none of them is needed
to run anything else.

    lm_eval          lm-evaluation-harness
    inspect_ai       inspect_ai
    every_eval_ever  the shared schema of results
    trackers         Weights & Biases and MLflow
    model_arguments  the model that one of them asks for
    gathering        prompts that arrive one by one, completed together
"""
