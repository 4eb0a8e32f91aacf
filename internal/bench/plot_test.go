package bench_test

import (
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

const (
	plotWidth          = 860
	plotTop, rowHeight = 86, 46
	barsLeft, barsEnd  = 210, 470
	dotsLeft, dotsEnd  = 540, 830
)

// The colours are those of light and dark pages. It has a ground of its own, since the
// page that shows it may be dark where the system is light.
const plotStyle = `<style>
svg { --ground: #ffffff; --ink: #1f2328; --faint: #d1d9e0; --dim: #59636e; --own: #0969da; --other: #afb8c1 }
@media (prefers-color-scheme: dark) { svg { --ground: #0d1117; --ink: #f0f6fc; --faint: #3d444d; --dim: #9198a1; --own: #4493f8; --other: #656c76 } }
text { font: 12px system-ui, sans-serif; fill: var(--ink) }
.title { font-weight: 600; font-size: 13px } .dim { fill: var(--dim); font-size: 11px }
.end { text-anchor: end } .middle { text-anchor: middle }
.grid { stroke: var(--faint) } .line { stroke: var(--ink); fill: none } .own { fill: var(--own) } .other { fill: var(--other) }
.hollow { fill: var(--ground); stroke: var(--ink) } .full { fill: var(--ink) }
</style>
`

// svg returns the plot of what servers were measured to do: a row for each, bars for
// rates and, on a logarithmic scale, dots for latencies.
func (r report) svg() string {
	height := plotTop + rowHeight*len(r.closed) + 58
	bottom := plotTop + rowHeight*len(r.closed)
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"Calls per second and latencies of the token broker and of what it is compared with\">\n%s",
		plotWidth, height, plotWidth, height, plotStyle)
	fmt.Fprintf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"var(--ground)\"/>\n", plotWidth, height)
	text := func(x, y float64, class, format string, args ...any) {
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">%s</text>\n", x, y, class, html.EscapeString(fmt.Sprintf(format, args...)))
	}
	text(barsLeft, 28, "title", "Calls a second, at most")
	text(barsLeft, 46, "dim", "bar: median of %d rounds; whisker: least and most", r.rounds)
	text(dotsLeft, 28, "title", "Latency at %.0f calls a second", r.rate)
	text(dotsLeft, 46, "dim", "○ p50   ● p99   │ p99.9   (medians)")

	_, _, most := r.closed[0].median(rateOf)
	for _, c := range r.closed {
		_, _, m := c.median(rateOf)
		most = max(most, m)
	}
	atRate := func(v float64) float64 { return barsLeft + (barsEnd-barsLeft)*v/most }
	least, longest := math.Inf(1), 0.0
	for _, c := range r.fixed {
		least, longest = min(least, c.of(p50Of)), max(longest, c.of(p999Of))
	}
	from, to := math.Floor(math.Log10(max(1, least))), math.Ceil(math.Log10(max(10, longest)))
	atTime := func(ns float64) float64 {
		return dotsLeft + (dotsEnd-dotsLeft)*(math.Log10(max(1, ns))-from)/(to-from)
	}
	for power := from; power <= to; power++ {
		x := atTime(math.Pow(10, power))
		fmt.Fprintf(&b, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" class=\"grid\"/>\n", x, x, plotTop-14, bottom)
		text(x, float64(bottom+16), "dim middle", "%v", time.Duration(math.Pow(10, power)))
	}
	for n, c := range r.closed {
		y := float64(plotTop + rowHeight*n)
		class := "other"
		if n == 0 {
			class = "own"
		}
		rate, low, high := c.median(rateOf)
		text(barsLeft-12, y+16, "end", "%s", c.name)
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"22\" class=\"%s\"/>\n", barsLeft, y, atRate(rate)-barsLeft, class)
		fmt.Fprintf(&b, "<path d=\"M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8\" class=\"line\"/>\n", atRate(low), y+11, atRate(high), atRate(low), y+7, atRate(high), y+7)
		text(atRate(high)+8, y+16, "", "%.0f", rate)
		f := r.fixed[n]
		p50, p99, p999 := atTime(f.of(p50Of)), atTime(f.of(p99Of)), atTime(f.of(p999Of))
		fmt.Fprintf(&b, "<path d=\"M%.1f %.1fH%.1fM%.1f %.1fv12\" class=\"line\"/>\n", p50, y+11, p999, p999, y+5)
		fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" class=\"hollow\"/><circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" class=\"full\"/>\n", p50, y+11, p99, y+11)
	}
	text(16, float64(height-14), "dim", "%s", r.machine)
	b.WriteString("</svg>\n")
	return b.String()
}
