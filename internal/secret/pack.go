package secret

import "strings"

// At returns the Text of *p, which is not changed any more.
func At(p *string) Text {
	if *p == "" {
		return Text{}
	}
	return Text{p}
}

// Pack moves texts next to each other in memory, so that the collector of garbage has
// less to look at. Each stays as long as any of them is held.
func Pack(texts ...*Text) {
	var b strings.Builder
	for _, t := range texts {
		b.WriteString(t.Reveal())
	}
	all, packed := b.String(), make([]string, len(texts))
	for i, t := range texts {
		n := len(t.Reveal())
		packed[i], all = all[:n], all[n:]
		*t = At(&packed[i])
	}
}
