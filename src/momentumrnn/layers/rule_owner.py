"""What layers and cells share: a rule that can be exchanged, and that a checkpoint remembers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from momentumrnn.errors import warn
from momentumrnn.layers import checks
from momentumrnn.rules import Rule

__all__ = ["RuleOwner"]


class RuleOwner(nn.Module):
    """A module with rules on its input; ``module.rule = …`` exchanges them.

    The rule given is a template: each place, that is each stacked layer and direction, gets a bound copy on
    the device and in the dtype of the weights, and the copies share their fixed coefficients. ``None`` takes
    the rules off. New learned coefficients are new parameters: give them to the optimizer.

    Raises:
        TypeError: no rule.
        ValueError: the rule needs weights of another shape, as a change of ``velocity`` does, or ``None``
            where momentum is carried.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "rule":
            self._exchange_rule(value)
        else:
            super().__setattr__(name, value)

    @abstractmethod
    def _rule_names(self) -> dict[str, str]:
        """Return the name of each place's rule, and of the weight W that it acts behind."""

    @abstractmethod
    def _drive_size(self, rule: Rule | None) -> int:
        """Return how many rows W has with the rule."""

    def _bind_rule(self, rule: Rule | None) -> None:
        """Give every place a bound copy of the rule, or none."""
        first: Rule | None = None
        for name, weight_name in self._rule_names().items():
            if rule is None:
                self._modules.pop(name, None)
                continue
            weight: Tensor = getattr(self, weight_name)
            bound = rule.bind(self._drive_size(rule), weight.device, weight.dtype)
            if first is not None:
                bound.share_coefficients(first)
            first = first or bound
            self._modules[name] = bound.train(self.training)

    def _exchange_rule(self, rule: Any) -> None:
        owner = type(self).__name__
        checks.check_rule(owner, rule, getattr(self, "carry_momentum", False))
        for name, weight_name in self._rule_names().items():
            if rule is not None and self._modules.get(name) is rule:
                return
            rows = getattr(self, weight_name).shape[0]
            if rows != self._drive_size(rule):
                raise ValueError(
                    f"{owner}: expected a rule for the {rows} rows of {weight_name}, got one that needs "
                    f"{self._drive_size(rule)}. A rule of the other velocity needs a new layer: "
                    f"{owner}(…, rule=…)"
                )
        self._bind_rule(rule)

    def _descriptions(self) -> dict[str, str]:
        rules = {name: self._modules.get(name) for name in self._rule_names()}
        return {name: rule.description() for name, rule in rules.items() if isinstance(rule, Rule)}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Beside the tensors and under no key, so that the names stay those of torch.nn.
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]]["rules"] = self._descriptions()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
        saved, own = local_metadata.get("rules"), self._descriptions()
        if saved is not None and saved != own:
            warn(
                f"{type(self).__name__}: the checkpoint was saved with {_listed(saved)}, but this module has "
                f"{_listed(own)}. The weights are loaded, and the rule stays as it is. To use the "
                "checkpoint's rule, assign it: layer.rule = rules.…"
            )


def _listed(descriptions: dict[str, str]) -> str:
    different = sorted(set(descriptions.values()))
    return " and ".join(different) or "no rule"
