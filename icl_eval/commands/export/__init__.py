"""Exporting: the figures and tables of finished runs and sweeps, as files for a paper."""

from icl_eval.commands.export.folders import export_folder, export_folders

__all__ = ["export_folder", "export_folders"]
