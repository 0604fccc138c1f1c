"""The style sheet of the HTML page."""

CSS = """\
:root {
  --ink: #1d2430; --soft: #5b6575; --paper: #fff; --panel: #f4f6f9; --line: #dde2ea;
  --error: #b42318; --warning: #9a5b00; --info: #175cd3; --good: #17703c; --bar: #6b8fd6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ef; --soft: #9aa4b5; --paper: #14171c; --panel: #1d222a; --line: #303744;
    --error: #ff8a7d; --warning: #f3b351; --info: #84b4ff; --good: #6bd394; --bar: #5578bd;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main, footer { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.25; overflow-wrap: anywhere; margin: 1.5rem 0 .5rem; }
h2 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
p { margin: .25rem 0; overflow-wrap: anywhere; }
code, .tree, td { font-family: ui-monospace, "DejaVu Sans Mono", Consolas, monospace; font-size: .875rem; }
code { overflow-wrap: anywhere; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--error); font-weight: 600; }
p.warning { color: var(--warning); }
.dim, footer { color: var(--soft); font-size: .875rem; }
dl { margin: 1rem 0; }
dl div { display: grid; grid-template-columns: 9rem 1fr; gap: .75rem; padding: .3rem 0;
  border-top: 1px solid var(--line); }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem; border-top: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 400; }
thead th { border: 0; color: var(--soft); font-size: .875rem; }
tbody th { min-width: 12rem; }
td { white-space: nowrap; }
th.r, td.r { text-align: right; }
.findings { list-style: none; padding: 0; }
.findings li { margin: .5rem 0; padding: .5rem .8rem; background: var(--panel);
  border-left: 4px solid var(--line); border-radius: 4px; break-inside: avoid; }
.findings .error { border-color: var(--error); }
.findings .warning { border-color: var(--warning); }
.findings .info { border-color: var(--info); }
.error .badge { color: var(--error); }
.warning .badge { color: var(--warning); }
.info .badge { color: var(--info); }
.hint { color: var(--soft); }
.tree div { padding-left: calc(var(--depth) * 1.25rem); overflow-wrap: anywhere; }
.bars div { display: grid; grid-template-columns: 9rem minmax(3rem, 16rem) 1fr; gap: .75rem;
  align-items: center; }
.track { background: var(--panel); border-radius: 3px; }
.track i { display: block; height: .7rem; min-width: 1px; background: var(--bar); border-radius: 3px; }
@media (max-width: 34rem) {
  dl div { grid-template-columns: 1fr; gap: 0; }
  .bars div { grid-template-columns: 1fr 1fr; gap: 0 .75rem; padding: .3rem 0; }
  .bars span:last-child { grid-column: 1 / -1; }
}
@media print {
  :root { --ink: #000; --soft: #444; --paper: #fff; --panel: #fff; --line: #bbb; }
  body { font-size: 10pt; }
  .wide { overflow: visible; }
  td { white-space: normal; }
  .track i { print-color-adjust: exact; }
}
"""
