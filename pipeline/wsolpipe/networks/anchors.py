"""Class anchors: text vectors made orthogonal, so that no class is close to another.

TeD-Loc (Murtaza et al., thesis chapter 3) pulls patches to anchors made by QR from CLIP's text vectors. K orthonormal
vectors need K dimensions; with fewer, the nearest equivalent is a tight frame, whose vectors are spread as evenly
as the dimensions allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from wsolpipe.contract.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Vectors = NDArray[np.floating[Any]]

Orthogonal = Literal["qr", "polar", "none"]

#: Singular values below this share of the largest, and Gram-Schmidt remainders below this length, count as nothing.
#: Vectors come from float32, whose rounding is about 1e-7 of their length.
NOTHING = 1e-5


def orthogonalise(vectors: Vectors, how: Orthogonal, names: Sequence[str]) -> NDArray[np.float64]:
    """Make anchors of text vectors.

    Parameters
    ----------
    vectors : float array [K, D]
        Unit vectors, row k of class k.
    how : {"qr", "polar", "none"}
        See `gram_schmidt` and `tight_frame`; ``none`` gives the vectors themselves.
    names : sequence of K str
        For messages.

    Returns
    -------
    float64 array [K, D]
        Row k belongs to row k of `vectors`.

    Raises
    ------
    ConfigError
        As the function that does it.
    """
    if how == "none":
        return np.asarray(vectors, np.float64)
    return gram_schmidt(vectors, names) if how == "qr" else tight_frame(vectors, names)


def gram_schmidt(vectors: Vectors, names: Sequence[str]) -> NDArray[np.float64]:
    """Orthonormal rows by QR of the transposed vectors, with a positive diagonal of R.

    Row k is what is left of vector k after all rows before it are taken out, made a unit vector: the first class keeps
    its vector, every class points to the side of its own vector (their product is the diagonal of R, positive), and the
    order of the classes matters.

    Parameters
    ----------
    vectors : float array [K, D]
        K at most D.
    names : sequence of K str

    Returns
    -------
    float64 array [K, D]
        ``rows @ rows.T`` is the identity.

    Raises
    ------
    ConfigError
        If there are more classes than dimensions, or a vector is a combination of those before it.
    """
    wide = np.asarray(vectors, np.float64)
    count, dimensions = wide.shape
    if count > dimensions:
        msg = (
            f"{count} classes in {dimensions} dimensions: at most {dimensions} vectors can be orthonormal, so QR would "
            f"leave {count - dimensions} classes without an anchor of their own"
        )
        raise ConfigError(
            msg,
            hint=f"orthogonal=polar gives the closest tight frame, orthogonal=none the plain vectors; or a CLIP with "
            f"{count} dimensions or more",
        )
    basis, triangle = np.linalg.qr(wide.T)
    left = np.diagonal(triangle)
    gone = np.flatnonzero(np.abs(left) < NOTHING)
    if len(gone):
        _refuse_dependent(wide, names, int(gone[0]))
    return np.ascontiguousarray((basis * np.sign(left)).T)


def tight_frame(vectors: Vectors, names: Sequence[str]) -> NDArray[np.float64]:
    """Closest tight frame: the orthogonal factor of the polar decomposition, as whitening gives it.

    With ``vectors = U S Vᵀ`` it is ``c U Vᵀ``, whose squared distance to the vectors is least of all frames with this
    c (Schönemann, 1966). Up to K = D rows are orthonormal, c = 1, and unlike QR's they depend on no order. Beyond,
    c = √(K/D), so that the mean squared length of a row is one; columns are orthogonal, ``rowsᵀ @ rows = K/D``, and
    rows are neither orthogonal nor all of one length.

    Parameters
    ----------
    vectors : float array [K, D]
    names : sequence of K str

    Returns
    -------
    float64 array [K, D]

    Raises
    ------
    ConfigError
        If the vectors span fewer than min(K, D) dimensions.
    """
    wide = np.asarray(vectors, np.float64)
    count, dimensions = wide.shape
    left, spread, right = np.linalg.svd(wide, full_matrices=False)
    spanned = int((spread > NOTHING * spread[0]).sum())
    if spanned < min(count, dimensions):
        if count <= dimensions:
            _refuse_dependent(wide, names, None)
        msg = f"the vectors of {count} classes span {spanned} of {dimensions} dimensions, so no tight frame is closest"
        raise ConfigError(msg, hint="give classes that are not called alike, or orthogonal=none")
    return np.asarray(left @ right * np.sqrt(max(1.0, count / dimensions)))


def _refuse_dependent(vectors: Vectors, names: Sequence[str], which: int | None) -> None:
    """Say which class has no direction of its own, and which other is nearest to it."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    first = int(cosines.max(axis=1).argmax()) if which is None else which
    second = int(cosines[first].argmax())
    msg = (
        f"class {first} ({names[first]!r}) has no direction of its own; nearest is class {second} "
        f"({names[second]!r}) with a cosine of {cosines[first, second]:.6f}"
    )
    raise ConfigError(msg, hint="rename one of them in the class list, so that their prompts differ")
