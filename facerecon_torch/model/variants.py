"""The models that a bilinear one is compared with: without its gauge, and linear with as many weights."""

from facerecon_torch.model.base import FaceModel
from facerecon_torch.model.bilinear import BilinearModel
from facerecon_torch.model.linear import LinearModel

__all__ = ["VARIANTS", "model_variant"]

VARIANTS = ("own", "free_gauge", "linear")


def model_variant(model: FaceModel, name: str) -> FaceModel:
    """The model itself (`own`), the same with a free gauge, or its linear part, on its device and in its dtype.

    The linear part is the plane that touches the bilinear shapes at the mean weights,
    S(alpha, mu_b) + S(mu_a, beta) - S(mu_a, mu_b), with the same weights, means and variances.

    Args:
        model: of the same mesh.
        name: one of `VARIANTS`.

    Raises:
        ValueError: another name, or a variant of a model that is not bilinear.

    Example:
        >>> linear = model_variant(load_default_face(), "linear")
    """
    if name not in VARIANTS:
        raise ValueError(f"a variant of a model must be one of {', '.join(VARIANTS)}; got {name!r}")
    if name == "own":
        return model
    if not isinstance(model, BilinearModel):
        raise ValueError(f"{name} is compared with a bilinear model; this one is a {type(model).__name__}")
    if name == "free_gauge":
        free = BilinearModel(
            model.core, model.identity_rows, model.expression_rows, model.topology,
            expression_names=model.expression_names, gauge="free",
        )  # fmt: skip
        return free.to(model.device)
    alpha, beta = model.identity_mean, model.expression_mean
    named = model.fix_gauge(alpha.expand(len(model.expression_rows), -1), model.expression_rows)[1]
    linear = LinearModel(
        -model.vertices(alpha, beta),
        model.identity_design(beta)[0],
        model.expression_design(alpha)[0],
        model.topology,
        identity_mean=alpha,
        identity_variance=model.identity_variance,
        expression_mean=beta,
        expression_variance=model.expression_variance,
        expression_rows=named,
        expression_names=model.expression_names,
    )
    return linear.to(model.device)
