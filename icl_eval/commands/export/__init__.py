"""The command `icl-eval export`: writes figures and tables of finished runs and sweeps for a paper.

From a folder to files:

    folders         exports the folder of a run or a sweep
    contents        which tables are exported
    tables          tables as Markdown, LaTeX and CSV
    figures         figures as SVG
    result_formats  formats of other programs
"""

from icl_eval.commands.export.folders import export_folder, export_folders

__all__ = ["export_folder", "export_folders"]
