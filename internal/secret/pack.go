package secret

import "strings"

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
		if n > 0 {
			t.p = &packed[i]
		}
	}
}
