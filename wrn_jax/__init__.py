"""WideResNets on CIFAR, trained by progressive recipes in JAX/Flax."""
