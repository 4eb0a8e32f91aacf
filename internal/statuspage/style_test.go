package statuspage_test

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var property = regexp.MustCompile(`--([a-z-]+): #([0-9a-f]+);`)

// luminance is that of WCAG 2.2, relative luminance.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

// Text can be read by those who see less well (WCAG 2.2, 1.4.3 and 1.4.11), by day
// and by night.
func TestContrast(t *testing.T) {
	css, err := os.ReadFile("page.css")
	if err != nil {
		t.Fatal(err)
	}
	day, rest, _ := strings.Cut(string(css), "@media")
	night, _, _ := strings.Cut(rest, "* {")
	for name, scheme := range map[string]string{"light": day, "dark": night} {
		colours := map[string]string{}
		for _, match := range property.FindAllStringSubmatch(scheme, -1) {
			colours[match[1]] = match[2]
		}
		contrast := func(a, b string) float64 {
			if colours[a] == "" || colours[b] == "" {
				t.Fatalf("%s: no colour %s or %s", name, a, b)
			}
			la, lb := luminance(t, colours[a]), luminance(t, colours[b])
			return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
		}
		for text, behind := range map[string][]string{
			"ink": {"paper", "sheet", "track", "bad-sheet", "warn-sheet"}, "quiet": {"paper", "sheet"}, "link": {"paper", "sheet"},
			"bad": {"sheet", "paper", "bad-sheet"}, "warn": {"sheet", "warn-sheet"}, "good": {"sheet", "paper"},
		} {
			for _, b := range behind {
				if got := contrast(text, b); got < 4.5 {
					t.Errorf("%s: %s on %s has a contrast of %.2f", name, text, b, got)
				}
			}
		}
		for _, fill := range []string{"good", "warn", "bad"} {
			if got := contrast(fill, "track"); got < 3 {
				t.Errorf("%s: a bar's %s has a contrast of %.2f to its track", name, fill, got)
			}
		}
	}
}
