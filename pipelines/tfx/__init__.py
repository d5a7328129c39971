"""The TensorFlow path as a DAG on TensorFlow Extended, in a process and an environment of its own.

On this side:

    run.py          inputs out, the DAG started, what it blessed taken in
    environment.py  where TFX can run on this machine: in its image or natively

On both sides:

    request.py      what the DAG is asked for, and what it answers
    splits.py       the rows on their way over
    sources.py      which code a component depends on

On TFX's side:

    __main__.py     `run` and `compile`
    dag.py          the components and what connects them
    inputs.py       what the first components read; the records are examples.py's
    components.py   components that TFX has no equal of
    trainer.py      what Trainer runs
    evaluation.py   what Evaluator measures and requires
    answers.py      how a run ended
"""

EXTRA = "assets.extra"
"""Where a SavedModel keeps what its writer wants to go with it: the weights and the history, as `Trained` has them."""
