"""Distribution strategies: which one a run uses, and how its workers agree."""

import functools
import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from iterand_tf.data.shard import Shard
from iterand_tf.errors import UserError, first_line
from iterand_tf.interruption import take_signals_back
from iterand_tf.strategies.rendezvous import wait_for_workers

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
_SLURM_TASKS = "SLURM_STEP_NUM_TASKS"


def make_strategy(name: str, virtual_devices: int = 0) -> tf.distribute.Strategy | None:
    """The strategy of a run, or None for one device. Call it before anything else of TensorFlow.

    Args:
        name: one of `STRATEGIES`. `"auto"`: several workers where TF_CONFIG or Slurm names them, else all local GPUs or
            virtual devices, else one device. `"multi_worker"` reads TF_CONFIG or, where that is not set, Slurm's
            variables.
        virtual_devices: split the CPU into so many devices, at least 2, and use them; 0 for none.
    """
    if name == "one_device":
        return None
    workers = _check_tf_config() or _slurm_tasks()
    if name == "multi_worker" or (name == "auto" and workers > 1):
        if not workers:
            raise UserError(
                "the strategy multi_worker needs TF_CONFIG or Slurm; to try it on this machine, start workers by "
                "tools/local_workers.py."
            )
        return _multi_worker()
    devices = tuple(f"CPU:{number}" for number in range(virtual_devices)) if virtual_devices else _gpus()
    if virtual_devices:
        _split_cpu(virtual_devices)
    if len(devices) > 1:
        return mirrored(devices)
    if name == "mirrored":
        raise UserError("the strategy mirrored needs several GPUs; on a CPU give virtual_devices=2 to try it.")
    return None


@functools.cache
def mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """One MirroredStrategy for a process: those of a CPU would share the keys of their collective operations."""
    return tf.distribute.MirroredStrategy(list(devices))


@functools.cache
def _multi_worker():
    source = "TF_CONFIG" if os.environ.get("TF_CONFIG") else "Slurm"
    try:
        cluster = _cluster(source)
        jobs = cluster.cluster_spec().as_dict()
        addresses = [address for job in ("chief", "worker") for address in jobs.get(job, ())]
        wait_for_workers(addresses, addresses.index(jobs[cluster.task_type][cluster.task_id]))
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=cluster)
        # TensorFlow has put a handler of its own in the place of SIGTERM's.
        take_signals_back()
        return strategy
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = first_line(error).rstrip(".")
        raise UserError(
            f"no cluster could be made from {source} ({reason}); check its values, and that the port is free."
        ) from error


def _cluster(source):
    if source == "TF_CONFIG":
        return tf.distribute.cluster_resolver.TFConfigClusterResolver()
    # The resolver counts GPUs by nvidia-smi and divides them among tasks; without any, numbers that divide must do.
    no_gpus = {} if _gpus() else {"gpus_per_node": _slurm_tasks(), "gpus_per_task": 1, "auto_set_gpu": False}
    return tf.distribute.cluster_resolver.SlurmClusterResolver(**no_gpus)


def _slurm_tasks() -> int:
    """Number of tasks of a Slurm step, 0 outside of one."""
    text = os.environ.get(_SLURM_TASKS, "0")
    if not text.isdecimal():
        raise UserError(f"{_SLURM_TASKS}={text} is wrong; start the workers with srun.")
    return int(text)


def _gpus():
    return tuple(f"GPU:{number}" for number in range(len(tf.config.list_physical_devices("GPU"))))


def _split_cpu(count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        # TensorFlow runs already, and keeps the devices that it has.
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise


def _check_tf_config() -> int:
    """Number of workers in TF_CONFIG, 0 where it is not set."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0
    example = '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        valid = not set(cluster) - {"worker", "chief"} and task["index"] in range(len(cluster[task["type"]]))
        addresses = [address for job in cluster.values() for address in job]
        ports = [int(address.rpartition(":")[2]) for address in addresses if address.rpartition(":")[0]]
        valid = valid and len(ports) == len(addresses) and all(0 < port < 2**16 for port in ports)
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise UserError(f"TF_CONFIG={text} is wrong; it must look like {example}.")
    return len(addresses)


def is_chief(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether this process writes the run's files: the chief, or where there is none the first worker."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_id == 0


def num_replicas(strategy: tf.distribute.Strategy | None) -> int:
    """Replicas of all workers."""
    return 1 if strategy is None else strategy.num_replicas_in_sync


def distribute(strategy: tf.distribute.Strategy | None, batches: Any) -> Any:
    """The dataset to give to `fit`: `batches` is a function of the shard that is this worker's."""
    if strategy is None:
        return batches(Shard())

    def of_worker(context):
        count = context.num_replicas_in_sync // context.num_input_pipelines
        return batches(Shard(context.num_replicas_in_sync, context.input_pipeline_id * count, count))

    return strategy.distribute_datasets_from_function(of_worker)


def any_worker(strategy: tf.distribute.Strategy | None, flag: bool) -> bool:
    """Whether the flag is set on any worker; all workers must call it together."""
    return sum_of_workers(strategy, float(flag)) > 0


def workers_differ(strategy: tf.distribute.Strategy | None, number: int) -> bool:
    """Whether other workers have another number, as this one sees it; all must call it together."""
    return sum_of_workers(strategy, number) != number * num_workers(strategy)


def sum_of_workers(strategy: tf.distribute.Strategy | None, number: Any) -> Any:
    """The sum of a number, or of an array, over all workers; all must call it together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return number
    replicas = strategy.num_replicas_in_sync // num_workers(strategy)
    return _summing(strategy)(tf.constant(number, tf.float64)).numpy() / replicas


def num_workers(strategy: tf.distribute.Strategy | None) -> int:
    """Processes that train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    cluster = strategy.cluster_resolver.cluster_spec()
    return sum(cluster.num_tasks(job) for job in ("chief", "worker") if job in cluster.jobs)


@functools.cache
def _summing(strategy):
    @tf.function
    def summing(value):
        return strategy.reduce("SUM", strategy.run(lambda: value), axis=None)

    return summing


class ShareStatistics(keras.callbacks.Callback):
    """Before validation, gives all replicas the first one's moving statistics, which are those that are saved.

    Where BatchNormalization is not synchronized each replica has its own, and validation would be of several networks.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        super().__init__()
        self._strategy = strategy

    def on_test_begin(self, logs=None):
        variables = [each for each in self.model.non_trainable_variables if each.name.startswith("moving_")]
        arrays = [np.asarray(variable) for variable in variables]
        if not arrays:
            return
        ends = np.cumsum([array.size for array in arrays])
        own = np.concatenate([array.ravel() for array in arrays])
        shared = sum_of_workers(self._strategy, own if is_chief(self._strategy) else np.zeros_like(own))
        for variable, array, values in zip(variables, arrays, np.split(shared, ends[:-1]), strict=True):
            variable.assign(values.reshape(array.shape).astype(array.dtype))
