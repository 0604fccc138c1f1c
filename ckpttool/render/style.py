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

PICTURES = """\
:root { --s0: #eef1f5; --s1: #fde3c8; --s2: #f9b983; --s3: #ec7f3f; --s4: #bd4613; --s5: #7c2503; }
@media (prefers-color-scheme: dark) {
  :root { --s0: #232933; --s1: #47301f; --s2: #764219; --s3: #b3571a; --s4: #ec8a45; --s5: #ffc795; }
}
.heat table { width: auto; border-spacing: 2px; border-collapse: separate; }
.heat th, .heat td { border: 0; padding: .15rem .4rem; text-align: center; white-space: nowrap; }
.heat td { min-width: 3.2rem; font-size: .75rem; border-radius: 3px; }
.heat tbody th { text-align: left; min-width: 7rem; max-width: 11rem; white-space: normal; overflow-wrap: anywhere;
  position: sticky; left: 0; background: var(--paper); font-size: .875rem; }
.heat thead th { font-size: .8rem; }
.s0 { background: var(--s0); color: var(--soft); }
.s1 { background: var(--s1); color: var(--ink); }
.s2 { background: var(--s2); color: var(--ink); }
.s3 { background: var(--s3); color: #000; }
.s4 { background: var(--s4); color: #fff; }
.s5 { background: var(--s5); color: #fff; }
.odd { background: var(--panel); color: var(--info); outline: 1px solid var(--info); outline-offset: -1px; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .8rem; color: var(--soft); }
.legend i { display: inline-block; width: 1rem; height: .8rem; border-radius: 3px; margin-right: .35rem;
  vertical-align: -.05rem; }
.histogram { margin: .5rem 0; break-inside: avoid; }
.histogram ul { display: flex; gap: 2px; margin: 0; padding: 0; list-style: none; max-width: 42rem; }
.histogram li { flex: 1 1 0; min-width: 0; text-align: center; }
.column { display: flex; align-items: flex-end; height: 9rem; background: var(--panel); border-radius: 3px; }
.column i { display: block; width: 100%; min-height: 1px; background: var(--bar); border-radius: 3px 3px 0 0; }
.histogram b { font-weight: 400; font-size: .7rem; color: var(--soft); }
.histogram figcaption { font-size: .8rem; color: var(--soft); }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
details { margin: 1rem 0; }
@media (max-width: 34rem) {
  .heat th, .heat td { padding: .15rem .2rem; }
  .heat td { min-width: 2.2rem; font-size: .65rem; }
  .heat tbody th { min-width: 6rem; max-width: 7rem; font-size: .75rem; }
}
summary { cursor: pointer; padding: .4rem 0; }
@media (prefers-color-scheme: dark) { .s4, .s5 { color: #000; } .s3 { color: #fff; } }
@media print {
  :root { --s0: #eef1f5; --s1: #fde3c8; --s2: #f9b983; --s3: #ec7f3f; --s4: #bd4613; --s5: #7c2503; }
  .heat td, .legend i, .column, .column i { print-color-adjust: exact; }
  .heat tbody th { position: static; }
  .heat tr { break-inside: avoid; }
  .s3 { color: #000; }
  .s4, .s5 { color: #fff; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""
"""The part of it that heat maps and histograms need. Shades go from nothing to the most, light and dark."""

RUNS = """\
.lane, .curves { display: grid; grid-template-columns: 13rem 1fr; gap: 0 .75rem; align-items: center; }
.lane { border-top: 1px solid var(--line); }
.lane span { font-size: .875rem; overflow-wrap: anywhere; padding: .15rem 0; }
.lane svg { width: 100%; height: 1.5rem; display: block; overflow: visible; }
.lane line { stroke: var(--bar); stroke-width: 3px; vector-effect: non-scaling-stroke; }
.save { fill: var(--good); }
.kill { fill: var(--error); }
.resume { fill: var(--info); }
.depart { fill: var(--warning); }
.lane rect, .curves polyline, .legend i { print-color-adjust: exact; }
.ticks { display: flex; justify-content: space-between; font-size: .8rem; color: var(--soft); }
.legend i.save { background: var(--good); }
.legend i.kill { background: var(--error); }
.legend i.resume { background: var(--info); }
.legend i.depart { background: var(--warning); }
.curves .plot { border: 1px solid var(--line); border-radius: 4px; background: var(--panel); }
.curves svg { width: 100%; height: 14rem; display: block; }
.curves polyline { fill: none; stroke-width: 2px; vector-effect: non-scaling-stroke; }
.curves .ends { display: flex; flex-direction: column; justify-content: space-between; height: 14rem;
  font-size: .8rem; color: var(--soft); text-align: right; }
.k0 { stroke: var(--bar); background: var(--bar); }
.k1 { stroke: var(--error); background: var(--error); stroke-dasharray: 6 4; }
.k2 { stroke: var(--warning); background: var(--warning); stroke-dasharray: 2 4; }
.k3 { stroke: var(--good); background: var(--good); stroke-dasharray: 8 3 2 3; }
@media (max-width: 34rem) {
  .lane { grid-template-columns: 1fr; padding-bottom: .3rem; }
  .lane:empty { display: none; }
  .curves { grid-template-columns: 3.5rem 1fr; }
}
@media print { .lane, .curves { break-inside: avoid; } }
"""
"""The part of it that timelines and curves need."""
