"""Tables for a paper: booktabs, any TeX engine, nothing but ASCII."""

from __future__ import annotations

import re
import textwrap
import unicodedata

from stages.report.page.document import Table
from stages.report.page.markup import Span, parsed, plain
from stages.report.page.walk import of_numbers

_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"\`{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # else an option of the command before
    "±": r"$\pm$", "▲": r"$\uparrow$", "▼": r"$\downarrow$", "†": r"$\dagger$",
    "‡": r"$\ddagger$", "×": r"$\times$", "÷": r"$\div$", "·": r"$\cdot$", "•": r"$\bullet$",
    "−": "$-$", "–": "--", "—": "---", "…": r"\ldots{}", "‘": "`", "’": "'", "“": "``",
    "”": "''", "°": r"$^\circ$", "§": r"\S{}", "µ": r"$\mu$", "≤": r"$\leq$", "≥": r"$\geq$",
    "≈": r"$\approx$", "≠": r"$\neq$", "→": r"$\to$", "←": r"$\leftarrow$", "∞": r"$\infty$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$",
    "²": "$^2$", "³": "$^3$", "½": r"$\frac12$", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}",
    "ø": r"\o{}", "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "œ": r"\oe{}", "Œ": r"\OE{}",
    "ı": r"\i{}", "\u00a0": "~", "\u202f": r"\,", "\u2009": r"\,", "\u2007": "~",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=",
    "\u0306": "u", "\u0307": ".", "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
    "\u0323": "d",
}  # fmt: skip
_GREEK = frozenset({
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi",
    "omega",
})  # fmt: skip


def latex(text: str) -> str:
    r"""Inline markup as LaTeX.

    >>> latex("**84.61 ± 3.81** †")
    '\\textbf{84.61 $\\pm$ 3.81} $\\dagger$'
    """
    return "".join(map(_made, parsed(text)))


def table(block: Table) -> str:
    r"""A floating table that is put in by \input, made smaller where the paper is narrower."""
    columns = "".join("r" if numbers else "l" for numbers in of_numbers(block))
    lines = [
        "% \\usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex(block.title)}}}",
        rf"  \label{{tab:{block.name}}}",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        "    " + " & ".join(_heads(block, columns)) + r" \\",
        r"    \midrule",
        *(f"    {_line(row)}" for row in block.rows),
        r"    \bottomrule",
        r"  \end{tabular}}",
    ]
    if block.note:
        lines += ["", r"  \smallskip", rf"  {{\footnotesize {latex(block.note)}\par}}"]
    return "\n".join([*lines, r"\end{table}", ""])


def _heads(block: Table, columns: str) -> list[str]:
    """In lines about as long as the cells below are."""
    made = []
    for k, (head, side) in enumerate(zip(block.head, columns, strict=True)):
        longest = max((len(plain(row[k])) for row in block.rows), default=0)
        whole = re.sub(" ([▲▼])", "\u00a0\\1", head)
        lines = textwrap.wrap(whole, max(longest, 10), break_long_words=False)
        if len(lines) < 2 or plain(head) != head:  # markup is not cut into
            made.append(latex(head))
            continue
        stacked = r" \\ ".join(map(latex, lines))
        made.append(rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}")
    return made


def _line(cells: tuple[str, ...]) -> str:
    return " & ".join(map(latex, cells)) + r" \\"


def _made(span: Span) -> str:
    inside = "".join(map(_made, span.inside))
    match span.kind:
        case "text":
            return _escaped(span.text)
        case "code":
            return rf"\texttt{{{_escaped(span.text)}}}"
        case "strong":
            return rf"\textbf{{{inside}}}"
        case "emphasis":
            return rf"\emph{{{inside}}}"
        case "link":
            return inside


def _escaped(text: str) -> str:
    out = []
    for at, c in enumerate(text):
        if c == "-":
            before, after = text[at - 1 : at], text[at + 1 : at + 2]
            # A minus before a number; two hyphens side by side would become a dash.
            minus = after.isdecimal() and not before.isalnum() and before != "-"
            out.append("$-$" if minus else "-{}" if after == "-" else "-")
        else:
            out.append(c if c.isascii() and c not in _SIGNS else _sign(c))
    return re.sub(r"([?!])`", r"\1{}`", "".join(out))


def _sign(c: str) -> str:
    """One that LaTeX has no name for is told by its number, instead of an error."""
    if c in _SIGNS:
        return _SIGNS[c]
    apart = unicodedata.normalize("NFD", c)
    if len(apart) == 2 and apart[0].isascii() and apart[1] in _ACCENTS:
        return rf"\{_ACCENTS[apart[1]]}{{{apart[0]}}}"
    name = unicodedata.name(c, "").removeprefix("GREEK SMALL LETTER ").lower()
    return rf"$\{name}$" if name in _GREEK else f"{{[}}U+{ord(c):04X}{{]}}"
