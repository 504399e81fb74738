"""Files chosen by the physical parameters that their names carry."""

from __future__ import annotations

import pytest

from wellkit.errors import ArgumentError, DataNotFoundError
from wellkit.fetch.plan import FileHash, HashKind, RemoteFile, Selection, select
from wellkit.fetch.where import parameters_in, parse_where

NAMES = ("layer_tcool_0.03.hdf5", "layer_tcool_0.10.hdf5", "layer_tcool_1.78.hdf5", "layer_tcool_1.78e1.hdf5")


def chosen(where: str, names: tuple[str, ...] = NAMES) -> list[str]:
    files = [RemoteFile(f"data/train/{name}", 1, FileHash(HashKind.sha256, "a" * 64)) for name in names]
    return [file.name for file in select(files, Selection(where=parse_where(where)), source="hub/x")]


def test_values_in_names_are_compared_as_numbers() -> None:
    assert chosen("tcool=0.1") == ["layer_tcool_0.10.hdf5"]
    assert chosen("tcool>=0.1,tcool<2") == ["layer_tcool_0.10.hdf5", "layer_tcool_1.78.hdf5"]
    assert chosen("TCOOL = 17.8") == ["layer_tcool_1.78e1.hdf5"]
    assert chosen("tcool != 0.1, tcool<1") == ["layer_tcool_0.03.hdf5"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("turbulent_radiative_layer_tcool_0.32.hdf5", {"tcool": 0.32}),
        ("rayleighBenard_Rayleigh_1e6_Prandtl_0.1.hdf5", {"rayleigh": 1e6, "prandtl": 0.1}),
        ("MHD_Ma_0.7_Ms_1.5.hdf5", {"ma": 0.7, "ms": 1.5}),
        ("gray_scott_F_0.014_k_0.054.h5", {"f": 0.014, "k": 0.054}),
        ("active_matter_L_10.0_zeta_1.0_alpha_-1.0.hdf5", {"l": 10, "zeta": 1, "alpha": -1}),
        ("euler_multi_quadrants_openBC_gamma_1.13_C2H6_16.hdf5", {"gamma": 1.13}),
        ("turbulent_radiative_layer_2D.hdf5", {}),
        ("waves.hdf5", {}),
    ],
)
def test_parameters_in_names(name: str, found: dict[str, float]) -> None:
    assert parameters_in(name) == pytest.approx(found)


def test_what_cannot_be_chosen() -> None:
    with pytest.raises(DataNotFoundError, match=r"no file has tcool=0\.5; tcool is one of 0\.03, 0\.1, 1\.78, 17\.8"):
        chosen("tcool=0.5")
    with pytest.raises(ArgumentError, match=r"carries the parameter 'tcol' \(they carry tcool\).*mean tcool"):
        chosen("tcol=0.1")
    with pytest.raises(ArgumentError, match="they carry none"):
        chosen("tcool=0.1", ("waves.hdf5",))
    for text in ("tcool", "tcool=warm", "=1", "", "tcool=0.1,", "tcool=>1"):
        with pytest.raises(ArgumentError, match="is no condition"):
            parse_where(text)
