"""The TensorFlow path as a DAG on TensorFlow Extended, in a process and an environment of its own.

run.py          on this side: inputs out, the DAG started in a container or natively, what it blessed taken in
environment.py  on this side: where TFX can run on this machine
request.py      what the DAG is asked for, and what it answers; read and written on both sides
__main__.py     on TFX's side, as all below: `run` and `compile`
dag.py          the components and what connects them
examples.py     pictures as tf.Example and back
schema.py       the model's curated schema for TFDV
trainer.py      what Trainer runs
evaluation.py   what Evaluator measures and requires
components.py   components that TFX has no equal of
lineage.py      what a run left in ML Metadata
"""
