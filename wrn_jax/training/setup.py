"""What a configuration means on a mesh of devices, settled once: training, compiling ahead of time, exporting and planning
all start from here, so what one of them reports is what another runs."""

import dataclasses
import functools
from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from wrn_jax.config import Config, datasets
from wrn_jax.config.datasets import DatasetInfo
from wrn_jax.config.timeline import Timeline
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.evaluation.evaluator import Evaluator
from wrn_jax.models import convolution
from wrn_jax.models.network import Network
from wrn_jax.runtime import cores, devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path
from wrn_jax.training.optimizer import make_optimizer
from wrn_jax.training.records import read_headers
from wrn_jax.training.state import TrainState, create_state
from wrn_jax.training.workdir import checkpoint_steps

SPLIT_IMAGES = convolution.WINOGRAD_PIXELS // 8**2
"""Least images for which a core becomes a device of its own: with fewer, layers of 8x8 pixels are too small for Winograd's
products."""

SPLIT_WIDTH = 4
"""Widest WideResNet for which a CPU's cores are devices of their own. WRN-28-10 gains no speed and takes more memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """Everything about a run that never changes while it trains, and no data.

    Attributes:
      config: the configuration with compute type and number of classes settled.
      mesh: the devices.
      dataset: facts of the data set.
      num_train: training images after the hold-out.
      timeline: the recipe on the clock of the run.
      normalisation: of the images.
      network: the network, without values.
      optimizer: the Optax chain, whose `update` takes `learning_rate`, `momentum` and `weight_decay`.
      abstract_state: the state as `jax.ShapeDtypeStruct`s.
      shardings: where each array of the state lives; see `devices.state_shardings`.
      steps_per_call: updates in one call of the compiled program, at most.
    """

    config: Config
    mesh: Mesh
    dataset: DatasetInfo
    num_train: int
    timeline: Timeline
    normalisation: Normalisation
    network: Network
    optimizer: optax.GradientTransformationExtraArgs
    abstract_state: TrainState
    shardings: TrainState
    steps_per_call: int

    def create_state(self, key: jax.Array) -> TrainState:
        """The state before the first update; `key` is the run's random key. Jittable."""
        return create_state(self.network, self.optimizer, key, self.timeline.uses("average_decay"))

    def make_evaluator(self) -> Evaluator:
        """The evaluator of the network on the devices."""
        return Evaluator(self.network.graphdef, self.normalisation, self.config.eval_batch_size, self.mesh)


def cpu_devices(num_images: int, widen_factor: int) -> int:
    """As how many devices a CPU computes fastest with `num_images` at a time.

    Threads that share out each loop of a small network wait for each other most of the time. With a device for each core,
    every core works through its own part of the batch, and they meet at the sums over the batch only.
    """
    most = min(cores.cpu_cores(), num_images // SPLIT_IMAGES) if widen_factor <= SPLIT_WIDTH else 1
    return next((count for count in range(most, 1, -1) if num_images % count == 0), 1)


def divide_cpu(config: Config, run: Path | None = None, for_training: bool = True) -> None:
    """Configures JAX to show a CPU as the devices that `config` asks for, as far as there are cores, or is fastest with.

    To be called before anything makes JAX's devices, and only in a process of the package's own, since other programs in it
    would find the CPU divided as well.

    Args:
      config: of the run.
      run: the directory of a run that is continued, or branched from: once it has a checkpoint, its number of devices is kept.
      for_training: whether images are trained on, or only evaluated.
    """
    if config.devices is not None:
        devices.set_cpu_devices(min(config.devices, cores.cpu_cores()))
        return
    if config.precision not in ("auto", "float32"):
        return
    headers = read_headers(run / "header.jsonl") if run and checkpoint_steps(run) else []
    if headers and headers[-1].hardware.get("platform") == "cpu":
        devices.set_cpu_devices(headers[-1].hardware.get("devices_used", 1))
        return
    # The images of a group are taken together, one group after the other.
    in_training = config.optimizer.sam_group or config.recipe.batch_size
    num_images = in_training if for_training else config.eval_batch_size
    devices.set_cpu_devices(cpu_devices(num_images, config.model.widen_factor))


def make_setup(config: Config, mesh: Mesh, for_training: bool = True) -> Setup:
    """The setup of `config` on `mesh`; reads no data. Raises UserError for what does not fit the data set or the mesh.

    Without `for_training` the recipe's batches need not split over the mesh: evaluation runs on any number of devices.
    """
    if for_training:
        devices.check_divisible(config.recipe.batch_size, mesh, config.model.batch_norm_groups, "recipe.batch_size")
        check_sam_group(config)
    config = resolve(config, mesh)
    num_train, num_classes = datasets.planned_sizes(config.data)
    dataset = datasets.info(config.data)
    on_accelerator = mesh.devices.flat[0].platform != "cpu"
    batch_mesh = mesh if mesh.size > 1 else None
    network = Network(config.model, num_classes, config.precision, batch_mesh, pack_dropout=on_accelerator)
    optimizer = make_optimizer(config.optimizer)
    timeline = Timeline.of(config)
    create = functools.partial(create_state, network, optimizer, averaged=timeline.uses("average_decay"))
    abstract_state = jax.eval_shape(create, jax.random.key(0))
    return Setup(
        config=config,
        mesh=mesh,
        dataset=dataset,
        num_train=num_train,
        timeline=timeline,
        normalisation=Normalisation(dataset.mean, dataset.std),
        network=network,
        optimizer=optimizer,
        abstract_state=abstract_state,
        shardings=devices.state_shardings(abstract_state, mesh, config.sharding),
        steps_per_call=devices.steps_per_call(config.steps_per_call, mesh.devices.flat[0]),
    )


def check_sam_group(config: Config) -> None:
    """Raises UserError unless the groups of sharpness-aware steps divide the batch, and nothing else divides it."""
    group, batch_size = config.optimizer.sam_group, config.recipe.batch_size
    if group is not None and batch_size % group:
        raise UserError(f"optimizer.sam_group = {group}: should divide recipe.batch_size = {batch_size}")
    if group is not None and config.model.batch_norm_groups > 1:
        raise UserError("model.batch_norm_groups: should be 1 with optimizer.sam_group, whose groups are normalised apart")


def resolve(config: Config, mesh: Mesh) -> Config:
    """The configuration with what it leaves open settled: compute type, number of classes, and from where its paths start.

    Stored relative, a path would mean another folder to whoever resumes elsewhere. Raises UserError.
    """
    _, num_classes = datasets.planned_sizes(config.data)
    if config.model.num_classes is not None and config.model.num_classes < num_classes:
        raise UserError(f"model.num_classes = {config.model.num_classes}: {config.data.name} has {num_classes} classes")
    given = {name: getattr(config.data, name) for name in ("directory", "archive", "cache")}
    paths = {f"data.{name}": str(user_path(path).absolute()) for name, path in given.items() if path}
    return config.override(
        paths
        | {
            "precision": devices.compute_dtype(config.precision, mesh.devices.flat[0]),
            "model.num_classes": config.model.num_classes or num_classes,
        }
    )
