"""The network: WideResNet, its convolutions, its weights by other names.

In: a `config.Model`. Out: a `Network`, which gives parameters, statistics and logits. Imports `config` and below.
"""
