package main_test

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const hostileName = `"><script>document.title='owned'</script><img src=//evil.example/x onerror=alert(1)>`

// TestTheStatusPageInABrowser shows that a real browser, without scripts, renders
// the page as it is meant to be, and asks for nothing else.
func TestTheStatusPageInABrowser(t *testing.T) {
	t.Parallel()
	s := newStatusScene(t, 10)
	b := openBrowser(t, s.ops)
	b.open("/status")
	b.picture("status-10-light")
	if got := b.text("#trouble + table .id"); !slices.Equal(got, []string{"baxter-and-sons", "calder-and-sons", "carver-and-sons", "dalton-and-sons"}) {
		t.Errorf("in trouble: %q", got)
	}
	if got := b.text("section[aria-labelledby=tenants] .id"); len(got) != 10 || got[0] != "abbott-and-sons" {
		t.Errorf("tenants: %q", got)
	}
	if got := b.text("section[aria-labelledby=fleet] .id"); len(got) != 3 || got[2] != "tokenbroker-7d9c5b8f4-x2k9q" {
		t.Errorf("replicas: %q", got)
	}
	if got := b.text("title"); !slices.Equal(got, []string{"(4) Token broker"}) {
		t.Errorf("title: %q", got)
	}
	b.named()

	light := b.background()
	b.scheme("dark")
	b.picture("status-10-dark")
	if dark := b.background(); light != "rgb(247, 247, 245)" || dark != "rgb(17, 20, 24)" {
		t.Errorf("the background is %s, and in the dark %s", light, dark)
	}
	for _, width := range []int64{320, 390, 600, 832, 833, 1280} {
		b.size(width, 844)
		b.fits(width)
		if width == 390 {
			b.picture("status-10-phone")
		}
	}

	// By hand: a part of an id, and back to all.
	b.do(chromedp.SendKeys(chromedp.CSS("#q"), "AL"+kb.Enter), chromedp.WaitVisible(chromedp.CSS("#q[value=al]")))
	if got := b.text("section[aria-labelledby=tenants] .id"); !slices.Equal(got, []string{"calder-and-sons", "dalton-and-sons"}) {
		t.Errorf("found: %q", got)
	}
	b.do(chromedp.Click(chromedp.CSS("h1 a")), chromedp.WaitVisible(chromedp.CSS(`#q[value=""]`)))
	if got := b.text("section[aria-labelledby=tenants] .id"); len(got) != 10 {
		t.Errorf("all: %q", got)
	}

	// What others have written is text.
	acme, err := s.store.Tenant(t.Context(), "abbott-and-sons")
	if err != nil {
		t.Fatal(err)
	}
	acme.DisplayName = hostileName
	if _, err := s.store.UpdateTenant(t.Context(), *acme); err != nil {
		t.Fatal(err)
	}
	s.silentReplica(`{"id": "odd", "name": ` + strconv.Quote(hostileName) + `, "version": "<style>body{display:none}</style>"}`)
	b.open("/status?q=" + "abbott")
	if got := b.text("script, img, style:not(head style)"); len(got) != 0 {
		t.Errorf("markup: %q", got)
	}
	if got := b.text("section[aria-labelledby=tenants] .about span:first-child"); !slices.Equal(got, []string{hostileName}) {
		t.Errorf("the name is shown as %q", got)
	}
	b.well()

	// Nor is there anything secret.
	for _, path := range []string{"/status", "/status?q=s", "/status?show=trouble"} {
		html, _ := s.html(path)
		for _, secret := range []string{"secret-of-", "api-key-of-", "planted-token", "eyJ"} {
			if strings.Contains(html, secret) {
				t.Errorf("%s: %q is on the page", path, secret)
			}
		}
	}
}

// background returns the colour behind everything.
func (b *browser) background() string {
	b.t.Helper()
	return ask(b, chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
}

// fits fails the test if the page is wider than the window.
func (b *browser) fits(width int64) {
	b.t.Helper()
	metrics, err := chromedp.Call(b.ctx, page.GetLayoutMetrics, cdp.Empty{})
	if err != nil {
		b.t.Fatal(err)
	}
	if got := metrics.CSSContentSize.Width; got > float64(width) {
		b.t.Errorf("the page is %v wide in a window of %d", got, width)
	}
}

// named fails the test if there is something on the page that is read to those who
// do not see, and has no name.
func (b *browser) named() {
	b.t.Helper()
	tree, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	found := map[string]int{}
	for _, node := range tree.Nodes {
		if node.Ignored || node.Role == nil {
			continue
		}
		role, name := strings.Trim(string(node.Role.Value), `"`), ""
		if node.Name != nil {
			name = strings.Trim(string(node.Name.Value), `"`)
		}
		found[role]++
		if name == "" && slices.Contains([]string{"image", "img", "link", "button", "searchbox", "heading", "columnheader", "rowheader", "navigation"}, role) {
			b.t.Errorf("a %s has no name", role)
		}
	}
	if found["table"] != 3 || found["row"] < 18 || found["rowheader"] < 17 || found["columnheader"] != 17 || found["image"]+found["img"] < 15 || found["searchbox"] != 1 {
		b.t.Errorf("on the page there are %v", found)
	}
}

var pageSize = regexp.MustCompile(`<tr role="row" class="`)

// TestTheStatusPageAtAHundredThousandTenants shows what a page takes, and that none
// walks the registry but a search, which walks the ids.
func TestTheStatusPageAtAHundredThousandTenants(t *testing.T) {
	for _, registered := range []int{10, 100_000} {
		s := newStatusScene(t, registered)
		rows := min(registered, 50)
		for _, look := range []struct {
			what, path string
			rows       int
			walks      bool // the ids
		}{
			{"a page", "/status", rows, false},
			{"one in the middle", "/status?after=hale-mercer", min(rows, (registered-10)/2), false},
			{"a search that finds many", "/status?q=son", rows, true},
			{"a search that finds none", "/status?q=nowhere", 0, true},
		} {
			var took []time.Duration
			var html string
			watchCounts(t, s)
			const times = 5
			for range times {
				var d time.Duration
				html, d = s.html(look.path)
				took = append(took, d)
			}
			counts := countsOf(t, s)
			slices.Sort(took)
			t.Logf("%d tenants, %s: %d KiB in %v, in Redis %v", registered, look.what, len(html)>>10, took[times/2].Round(100*time.Microsecond), counts)
			_, list, _ := strings.Cut(html, `aria-labelledby="tenants"`)
			list, _, _ = strings.Cut(list, "</section>")
			if got := len(pageSize.FindAllString(list, -1)); got != look.rows {
				t.Errorf("%s: %d rows, want %d", look.what, got, look.rows)
			}
			if size := len(html); size > 150<<10 {
				t.Errorf("%s: %d bytes", look.what, size)
			}
			// The records of a page, and the tokens of those on it and of those in trouble, each a
			// command that counts exchanges with another.
			for command, most := range map[string]int{"hmget": 1 + rows + 10, "evalsha": rows + 10, "zrevrange": 1, "hget": 0, "hscan": 0, "zrangebylex": 1 + registered/4000} {
				if !look.walks && command == "zrangebylex" {
					most = 1
				}
				if counts[command] > times*most+2 { // And what goes on beside.
					t.Errorf("%s: %s is sent %d times for %d pages", look.what, command, counts[command], times)
				}
			}
		}
		if registered > 10 {
			s.byHand()
		}
	}
}

// byHand goes through the pages of many tenants.
func (s *statusScene) byHand() {
	s.t.Helper()
	t, b := s.t, openBrowser(s.t, s.ops)
	b.open("/status")
	b.picture("status-100000-light")
	b.scheme("dark")
	b.picture("status-100000-dark")
	b.size(390, 844)
	b.fits(390)
	b.picture("status-100000-phone")
	b.size(1280, 900)
	b.scheme("light")
	all := func() []string { return b.text("section[aria-labelledby=tenants] .id") }
	first := all()
	b.do(chromedp.Click(chromedp.CSS(".pages a[rel=next]")), chromedp.WaitVisible(chromedp.CSS(".pages a[href='/status']")))
	second := all()
	if len(first) != 50 || len(second) != 50 || second[0] <= first[49] {
		t.Errorf("after %q comes %q", first, second)
	}
	b.do(chromedp.Click(chromedp.CSS(".pages a[href='/status']")), chromedp.WaitNotPresent(chromedp.CSS(".pages a[href='/status']")))
	if got := all(); !slices.Equal(got, first) {
		t.Errorf("the first page again: %q", got)
	}
	wanted := firm(77_777).ID
	b.do(chromedp.SendKeys(chromedp.CSS("#q"), wanted), chromedp.Click(chromedp.CSS("form button")), chromedp.WaitVisible(chromedp.CSS(fmt.Sprintf("#q[value='%s']", wanted))))
	if got := all(); !slices.Equal(got, []string{wanted}) {
		t.Errorf("found %q, want %q", got, wanted)
	}
	b.picture("status-100000-search")
	b.well()
}

// watchCounts has Redis count commands anew.
func watchCounts(t *testing.T, s *statusScene) {
	t.Helper()
	if err := s.redis.Client().ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

// countsOf returns the commands that Redis was given since.
func countsOf(t *testing.T, s *statusScene) map[string]int {
	t.Helper()
	info, err := s.redis.Client().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, match := range commandStat.FindAllStringSubmatch(info, -1) {
		if name := match[1]; name != "info" && !strings.Contains(name, "|") {
			counts[name], _ = strconv.Atoi(match[2])
		}
	}
	return counts
}

// BenchmarkStatusPage is a page of fifty, if there are so many, from end to end.
func BenchmarkStatusPage(b *testing.B) {
	for _, registered := range []int{10, 100_000} {
		b.Run(strconv.Itoa(registered), func(b *testing.B) {
			s := newStatusScene(b, registered)
			size := 0
			for b.Loop() {
				html, _ := s.html("/status")
				size = len(html)
			}
			b.ReportMetric(float64(size), "bytes/page")
		})
	}
}
