package bench_test

import (
	"fmt"
	"math"
	"strings"
)

// panel is one of the small plots: lines over numbers of something.
type panel struct {
	title string
	log   bool // of the numbers
	lines []plotted
}

type plotted struct {
	name   string
	x, y   []float64
	dashed bool
}

// Sizes in pixels.
const (
	panelWidth, panelHeight = 380, 250
	left, right, top, below = 58, 30, 44, 34
)

func (r *scaleReport) svg() string {
	of := func(points []loadPoint, y func(loadPoint) float64) (xs, ys []float64) {
		for _, p := range points {
			xs, ys = append(xs, float64(p.N)), append(ys, y(p))
		}
		return xs, ys
	}
	rate := func(p loadPoint) float64 { return median(p.Rate) }
	p99 := func(p loadPoint) float64 { return median(p.P99) }
	line := func(name string, points []loadPoint, y func(loadPoint) float64) plotted {
		xs, ys := of(points, y)
		return plotted{name: name, x: xs, y: ys}
	}
	start := plotted{name: "median"}
	for _, p := range r.Start {
		start.x, start.y = append(start.x, float64(p.N)), append(start.y, median(p.MS))
	}
	var memory []plotted
	for _, c := range r.Memory[:min(2, len(r.Memory))] {
		l := plotted{name: c.Of}
		for _, p := range c.Points {
			l.x, l.y = append(l.x, float64(p.N)), append(l.y, p.Held/(1<<20))
		}
		memory = append(memory, l)
	}
	warm := plotted{name: "warm"}
	for i, at := range r.Storm.Warm {
		warm.x, warm.y = append(warm.x, at), append(warm.y, float64((i+1)*r.Storm.Tenants)/100)
	}
	limit := plotted{name: "what the limit allows", dashed: true, x: []float64{0, r.Storm.Arithmetic}, y: []float64{float64(r.Storm.Burst), float64(r.Storm.Tenants)}}
	return draw([]panel{
		{"calls/s over tenants", true, []plotted{line("tokenbroker", r.Tenants, rate), line("a map, bare gRPC", r.Bare, rate)}},
		{"p99 (ms) over tenants", true, []plotted{line("tokenbroker", r.Tenants, p99), line("a map, bare gRPC", r.Bare, p99)}},
		{"calls/s over connections", true, []plotted{line("without pause", r.Connections, rate)}},
		{"p99 (ms) over connections", true, []plotted{line("steady rate", r.Steady, p99)}},
		{"memory held (MiB) over tenants", false, memory},
		{"start (ms) over tenants registered", true, []plotted{start}},
		{"cold storm: tenants over seconds", false, []plotted{warm, limit}},
	})
}

func draw(panels []panel) string {
	const columns = 2
	rows := (len(panels) + columns - 1) / columns
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11" fill="#444"><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", columns*panelWidth, rows*panelHeight)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", i%columns*panelWidth, i/columns*panelHeight)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p panel) draw(b *strings.Builder) {
	var most, widest float64
	for _, l := range p.lines {
		for i := range l.x {
			most, widest = max(most, l.y[i]), max(widest, l.x[i])
		}
	}
	most = roundUp(most)
	x := func(v float64) float64 {
		part := v / max(widest, 1)
		if p.log {
			part = math.Log10(max(v, 1)) / max(math.Log10(widest), 1)
		}
		return left + part*(panelWidth-left-right)
	}
	y := func(v float64) float64 { return panelHeight - below - v/most*(panelHeight-below-top) }
	fmt.Fprintf(b, `<text x="%d" y="16" font-size="13" fill="#111">%s</text>`+"\n", left, p.title)
	for i := range 5 {
		v := most * float64(i) / 4
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left, y(v), panelWidth-right, left-6, y(v)+4, short3(v))
	}
	for _, v := range p.marks(widest) {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x(v), panelHeight-below+16, thousands(int(v)))
	}
	for i, l := range p.lines {
		colour := []string{"#1f5fa8", "#b4531f"}[i%2]
		dash := ""
		if l.dashed {
			dash = ` stroke-dasharray="5 4"`
		}
		var points []string
		for j := range l.x {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(l.x[j]), y(l.y[j])))
			if len(l.x) < 20 {
				fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(l.x[j]), y(l.y[j]), colour)
			}
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", strings.Join(points, " "), colour, dash)
		if len(p.lines) > 1 {
			fmt.Fprintf(b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", left+i*150, 32, colour, l.name)
		}
	}
}

// marks are the numbers that stand below the axis.
func (p panel) marks(widest float64) (marks []float64) {
	if p.log {
		for v := 1.; v <= widest; v *= 10 {
			marks = append(marks, v)
		}
		return marks
	}
	for i := range 5 {
		marks = append(marks, math.Round(widest*float64(i)/4))
	}
	return marks
}

// roundUp returns the next number that an axis may end with.
func roundUp(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, n := range []float64{1, 1.2, 1.6, 2, 3, 4, 5, 6, 8} {
		if n*unit >= v {
			return n * unit
		}
	}
	return 10 * unit
}

func short3(v float64) string {
	if v >= 1000 {
		return thousands(int(v))
	}
	return fmt.Sprintf("%.3g", v)
}
