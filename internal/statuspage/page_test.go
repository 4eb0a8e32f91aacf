package statuspage_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/statuspage"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

func TestEveryTenantIsShownWithItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.register(t, "acme", "globex", "initech", "other")
		for id, change := range map[string]func(*tenant.Tenant){
			"globex": func(t *tenant.Tenant) { t.Disabled = true },
			"other":  func(t *tenant.Tenant) { t.Region, t.Environment, t.DisplayName = tenant.UK, tenant.Staging, "" },
		} {
			if _, err := h.registry.Update(t.Context(), id, "", false, func(t *tenant.Tenant) error { change(t); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		h.get(t, "acme")
		// Another replica has it, too, and this one has not heard of it.
		if _, err := h.Deaf(t).Get(t.Context(), "other", nil, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Minute)
		page := h.see(t, "/status")
		wants(t, page, "v1.2.3", "In trouble</h2>", "Nothing, as far as this replica knows.", `Tenants <span class="count">123,456</span>`, "Redis writes &lt;nothing&gt; to disk.",
			"<b>This replica</b> <span>ready</span>", "<b>Redis</b> <span>answers in", `class="good"><i aria-hidden="true">●</i> <b>An issuer</b> <span>serves`, "As of <time")
		for _, id := range []string{"acme", "other"} {
			r := row(t, page, "tenants", id)
			wants(t, r, "●</i> Fresh", "40\u00a0min left", "20\u00a0min\u00a0ago", `aria-label="1 exchange in the last 24 hours"`, "40\u00a0min left of 60\u00a0min")
			if !regexp.MustCompile(`in\x{a0}2\d\x{a0}min</time>`).MatchString(r) {
				t.Errorf("%s: when the refresh is due is not to be seen: %s", id, r)
			}
			if !regexp.MustCompile(`class="fill" width="66\.\d"`).MatchString(r) {
				t.Errorf("%s: what is left of the token is not two thirds: %s", id, r)
			}
		}
		wants(t, row(t, page, "tenants", "acme"), "Firm of acme", "US production")
		wants(t, row(t, page, "tenants", "other"), "UK staging")
		wants(t, row(t, page, "tenants", "globex"), "○</i> Disabled", "not:<svg")
		wants(t, row(t, page, "tenants", "initech"), "○</i> Idle", "not:<svg", "not:<time")

		time.Sleep(29 * time.Minute) // It has been asked for once, and is left to expire.
		wants(t, row(t, h.see(t, "/status"), "tenants", "acme"), "Refresh due", `class="bar warn"`, "11\u00a0min left", ">due</time>")
	})
}

func TestTheWorstTroubleIsShownFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		classes := map[string]token.Class{}
		h.Issuer.Answer = func(c token.Credential) *token.Failure {
			if class := classes[c.ClientID]; class != "" {
				return &token.Failure{Class: class, Message: "says " + string(class), RetryAfter: 4 * time.Minute}
			}
			return nil
		}
		h.register(t, "acme", "bluth", "hooli", "initech", "scopes")
		h.get(t, "acme", "bluth", "initech")
		for id, class := range map[string]token.Class{"bluth": token.Throttled, "hooli": token.CredentialsRejected, "initech": token.Unavailable} {
			classes["planted-client-"+id] = class
		}
		if _, err := h.broker.Get(t.Context(), "hooli", nil, 0); err == nil {
			t.Fatal("hooli has a token")
		}
		time.Sleep(10 * time.Minute)
		held, _ := h.broker.Get(t.Context(), "initech", nil, 0)
		if _, err := h.broker.Refresh(t.Context(), "initech", nil, held.Token.ID); err == nil {
			t.Fatal("initech has another token")
		}
		classes["planted-client-scopes"] = token.ScopeRejected
		if _, err := h.broker.Get(t.Context(), "scopes", []string{"matters/<b>"}, 0); err == nil {
			t.Fatal("scopes has a token")
		}
		page := h.see(t, "/status")
		wants(t, page, "<title>(3) Token broker</title>", `In trouble <span class="count">3</span>`)
		if got, want := ids(page, "trouble"), []string{"hooli", "scopes", "initech"}; !slices.Equal(got, want) {
			t.Errorf("in trouble: %q, want %q", got, want)
		}
		wants(t, row(t, page, "trouble", "hooli"), `class="bad"`, "■</i> Refused", "The issuer does not accept the client id and secret.", "says credentials_rejected.", "not:<svg class=\"bar")
		wants(t, row(t, page, "trouble", "scopes"), "Refused", "The issuer does not grant these scopes.", "for matters/&lt;b&gt;")
		wants(t, row(t, page, "tenants", "scopes"), "Idle", "not:for matters") // Of its registered scopes nobody has asked for one.
		wants(t, row(t, page, "trouble", "initech"), `class="warn"`, "▲</i> Refresh fails", "50\u00a0min left", "in\u00a04\u00a0min", "2 exchanges in the last 24 hours, 1 failed", `<path class="down"`)
		wants(t, row(t, page, "tenants", "initech"), "Refresh fails", "says unavailable.")
		wants(t, row(t, page, "tenants", "acme"), "Fresh")

		// Another replica has bought one since.
		delete(classes, "planted-client-hooli")
		time.Sleep(time.Second)
		h.Store.Put(token.Key{Endpoint: "issuer.us", ClientID: "planted-client-hooli", SecretID: "id of planted-secret-hooli"}, token.Token{
			ID: "new", Issued: time.Now(), Expires: time.Now().Add(time.Hour), RefreshAt: time.Now().Add(45 * time.Minute)})
		wants(t, row(t, h.see(t, "/status"), "tenants", "hooli"), "Fresh", "not:does not accept")
	})
}

// A token that is in use, and that nothing replaces, is seen though nothing has failed.
func TestATokenThatIsNotReplacedIsTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		var slow atomic.Bool
		h.Issuer.Answer = func(token.Credential) *token.Failure {
			if slow.Load() {
				time.Sleep(time.Hour)
			}
			return nil
		}
		h.register(t, "acme")
		h.get(t, "acme")
		h.get(t, "acme")
		slow.Store(true)
		time.Sleep(58 * time.Minute)
		wants(t, row(t, h.see(t, "/status"), "trouble", "acme"), "▲</i> Refresh late", "2\u00a0min left")
		time.Sleep(2 * time.Minute)
		wants(t, row(t, h.see(t, "/status"), "trouble", "acme"), "No token")
	})
}

func TestMoreTroublesThanAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.Issuer.Answer = func(c token.Credential) *token.Failure {
			return &token.Failure{Class: token.CredentialsRejected, Message: "no"}
		}
		for n := range 210 {
			id := fmt.Sprintf("firm-%03d", n)
			h.register(t, id)
			synctest.Wait()
			_, _ = h.broker.Get(t.Context(), id, nil, 0)
		}
		page := h.see(t, "/status")
		wants(t, page, `In trouble <span class="count">210</span>`, `<a href="/status?show=trouble">All 210 in trouble</a>`)
		if got := ids(page, "trouble"); len(got) != 8 || got[0] != "firm-000" || got[7] != "firm-007" {
			t.Errorf("in trouble: %q", got)
		}
		all := h.see(t, "/status?show=trouble")
		wants(t, all, "And 10 more", `<a href="/status">All tenants</a>`, "not:<form")
		if got := ids(all, "trouble"); len(got) != 200 || !slices.IsSorted(got) {
			t.Errorf("all in trouble: %q", got)
		}
	})
}

var idSpan = regexp.MustCompile(`<span class="id">([^<]*)</span>`)

// ids returns the ids in a list, in its order.
func ids(page, list string) (found []string) {
	_, section, _ := strings.Cut(page, `<section aria-labelledby="`+list+`">`)
	section, _, _ = strings.Cut(section, "</section>")
	for _, match := range idSpan.FindAllStringSubmatch(section, -1) {
		found = append(found, match[1])
	}
	return found
}

var nextLink = regexp.MustCompile(`<a rel="next" href="([^"]*)">`)

// walk follows the links from page to page, and returns all ids, page by page.
func walk(t *testing.T, h *house, path string) (pages [][]string) {
	t.Helper()
	for path != "" && len(pages) < 20 {
		page := h.see(t, path)
		pages = append(pages, ids(page, "tenants"))
		next := nextLink.FindStringSubmatch(page)
		path = ""
		if next != nil {
			path = strings.ReplaceAll(next[1], "&amp;", "&")
		}
	}
	return pages
}

func TestPagesAndSearch(t *testing.T) {
	h := newHouse(t, nil)
	var all, odd []string
	for n := range 120 {
		id := fmt.Sprintf("firm-%03d", n)
		if n%2 == 1 {
			id += "-odd"
			odd = append(odd, id)
		}
		all = append(all, id)
	}
	h.register(t, all...)
	pages := walk(t, h, "/status")
	if len(pages) != 3 || len(pages[0]) != 50 || len(pages[1]) != 50 || !slices.Equal(slices.Concat(pages...), all) {
		t.Errorf("pages: %q", pages)
	}
	pages = walk(t, h, "/status?q=-ODD+&refresh=1")
	if len(pages) != 2 || !slices.Equal(slices.Concat(pages...), odd) {
		t.Errorf("pages of a search: %q", pages)
	}
	page := h.see(t, "/status?after=firm-049-odd&q=odd&refresh=30")
	wants(t, page, `<a href="/status?q=odd&amp;refresh=30">First page</a>`, `value="odd"`, `<meta http-equiv="refresh" content="30">`, `type="hidden" name="refresh"`, `<a href="/status?after=firm-049-odd&amp;q=odd">Stop`)
	wants(t, h.see(t, "/status"), "not:http-equiv", "not:First page")
	wants(t, h.see(t, "/status?q=tenants/firm-007-odd"), `<span class="id">firm-007-odd</span>`, "not:firm-006")
	wants(t, h.see(t, `/status?q="><script>`), "No tenant has “&#34;&gt;&lt;script&gt;” in its id.", "not:<script", "not:<table role=\"table\" class=\"tokens\"")
	wants(t, h.see(t, "/status?after=zzz"), "There are no more tenants.", "First page")
}

func TestWhatNobodyCanMeanIsRefused(t *testing.T) {
	h := newHouse(t, nil)
	for _, path := range []string{"/status?q=%ff", "/status?after=%c3%28", "/status?q=" + strings.Repeat("a", 72), "/status?after=" + strings.Repeat("a", 72),
		"/status?x=" + strings.Repeat("a", 2000), "/status?q=%zz", "/status?q=a;b"} {
		if got := serve(h.page, request(t, path)); got.status != http.StatusBadRequest || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") || len(got.body) > 200 {
			t.Errorf("%.80s: %d %q", path, got.status, got.body)
		}
	}
}

// The page says so, and shows what is in memory.
func TestWhileRedisIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.register(t, "acme", "globex", "initech", "unseen")
		h.get(t, "acme", "globex", "initech")
		h.redis.away.Store(true)
		h.Store.SetAway(true)
		for _, path := range []string{"/status", "/status?show=trouble"} {
			wants(t, h.see(t, path), "<b>Redis</b> <span>out of reach", "Not known while Redis is out of reach.", "not:planted", "not:123,456", "not:writes")
		}
		page := h.see(t, "/status")
		wants(t, page, "Redis is out of reach. These are the tenants that this replica has in memory")
		if got := ids(page, "tenants"); !slices.Equal(got, []string{"acme", "globex", "initech"}) {
			t.Errorf("in memory: %q", got)
		}
		wants(t, row(t, page, "tenants", "globex"), "Fresh", "60\u00a0min left")
		if got := ids(h.see(t, "/status?q=e&after=acme"), "tenants"); !slices.Equal(got, []string{"globex", "initech"}) {
			t.Errorf("found in memory: %q", got)
		}
		// It is gone between two questions.
		h.redis.away.Store(false)
		wants(t, h.see(t, "/status"), "Redis is out of reach. These are", `<span class="id">acme</span>`)
	})
}

// sealed is a registry whose records were sealed with another keyset.
type sealed struct{ broker.Records }

func (s sealed) ListTenants(ctx context.Context, after string, limit int) ([]*tenant.Tenant, string, error) {
	tenants, next, err := s.Records.ListTenants(ctx, after, limit)
	for i, t := range tenants {
		tenants[i] = &tenant.Tenant{ID: t.ID, Etag: t.Etag}
	}
	return tenants, next, err
}

func TestARecordThatCannotBeOpened(t *testing.T) {
	h := newHouse(t, func(c *statuspage.Config, h *house) { c.Registry = broker.NewRegistry(h.broker, sealed{h.Store}) })
	h.register(t, "acme")
	wants(t, row(t, h.see(t, "/status"), "tenants", "acme"), `class="bad"`, "■</i> Unreadable", "keyset", "not:<svg", "not:Firm")
}

func TestTheReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *statuspage.Config, _ *house) {
			c.Hindrances = func() []string { return []string{"not ready: the audit log <cannot> be written"} }
		})
		wants(t, h.see(t, "/status"), "None has been heard of yet.", "■</i> <b>This replica</b> <span>not ready: the audit log &lt;cannot&gt; be written")
		h.redis.replicas = []statuspage.Replica{
			{Name: "pod-a", Addr: "10.0.0.1:9090", Version: "v2", Since: time.Now().Add(-3 * time.Hour), Seen: 4 * time.Second, Self: true},
			{Name: "pod-b", Version: "v1", Since: time.Now().Add(-50 * time.Hour), Seen: 4 * time.Minute},
			{Name: `<img src=x onerror=alert(1)>` + strings.Repeat("n", 5000), Addr: "\x1b[31m\u202e", Version: "\xff<b>", Seen: time.Second, Since: time.Date(99999, 1, 1, 0, 0, 0, 0, time.UTC)},
			{},
		}
		page := h.see(t, "/status")
		wants(t, page, `Replicas <span class="count">4</span>`, "&lt;img src=x onerror=alert(1)&gt;nnn", "not:<img", "not:<b>nn", "not:"+strings.Repeat("n", 200), "not:\x1b", "not:\u202e", "not:\xff", "unnamed", "not:99999")
		wants(t, row(t, page, "fleet", "pod-a"), "10.0.0.1:9090", "this one", "●</i> There", "v2", "3\u00a0h\u00a0ago", "4\u00a0s ago")
		wants(t, row(t, page, "fleet", "pod-b"), "▲</i> Silent", "4\u00a0min ago", "2\u00a0days\u00a0ago", "not:this one")
	})
}

// Whatever has happened, nothing that is secret is on the page, nor what only the
// store's driver says, and what tenants are called is no markup.
func TestNothingSecretAndNoMarkupIsOnThePage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.register(t, "acme", "globex")
		hostile := `</title><script>alert(1)</script>"'><svg onload=alert(2)>` + "\x00\u202e"
		if _, err := h.registry.Update(t.Context(), "acme", "", false, func(t *tenant.Tenant) error { t.DisplayName = hostile; return nil }); err != nil {
			t.Fatal(err)
		}
		h.get(t, "acme", "globex")
		tok, err := h.broker.Get(t.Context(), "acme", nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		h.Issuer.Answer = func(token.Credential) *token.Failure {
			return &token.Failure{Class: token.Malformed, Message: "<i>odd</i>" + strings.Repeat("m", 5000), Cause: errAway}
		}
		time.Sleep(time.Minute)
		if _, err := h.broker.Refresh(t.Context(), "acme", nil, tok.Token.ID); err == nil {
			t.Fatal("another token")
		}
		for _, path := range []string{"/status", "/status?q=acme", "/status?show=trouble"} {
			page := h.see(t, path)
			wants(t, page, "not:planted", "not:"+tok.Token.AccessToken.Reveal(), "not:<script", "not:<svg onload", "not:</title><s", "not:<i>odd", "not:\x00", "not:\u202e", "not:"+strings.Repeat("m", 200),
				"&lt;/title&gt;&lt;script&gt;", "&lt;i&gt;odd&lt;/i&gt;")
		}
	})
}

// So that nobody can use the page to load Redis.
func TestFourPagesAreMadeAtATime(t *testing.T) {
	h := newHouse(t, nil)
	h.redis.hold, h.redis.held = make(chan struct{}), make(chan struct{}, 10)
	served := make(chan int, 4)
	for range 4 {
		r := request(t, "/status")
		go func() { served <- serve(h.page, r).status }()
		<-h.redis.held
	}
	fifth := make(chan answer, 1)
	r := request(t, "/status")
	go func() { fifth <- serve(h.page, r) }()
	select {
	case got := <-fifth:
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") != "1" {
			t.Errorf("the fifth: %d, %v", got.status, got.header)
		}
	case <-h.redis.held:
		t.Error("the fifth is made beside four others")
	}
	close(h.redis.hold)
	for range 4 {
		if status := <-served; status != http.StatusOK {
			t.Errorf("one of four: %d", status)
		}
	}
	h.redis.hold = nil
	h.see(t, "/status")
}

func TestHeadersForbidTheBrowserEverythingElse(t *testing.T) {
	h := newHouse(t, nil)
	stranger := request(t, "/status")
	stranger.RemoteAddr = "192.0.2.1:50123"
	for what, r := range map[string]*http.Request{"the page": request(t, "/status"), "a refusal": stranger, "a bad request": request(t, "/status?q=%ff")} {
		got := serve(h.page, r).header
		for name, want := range map[string]string{
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got.Get(name) != want {
				t.Errorf("%s: %s: %q, want %q", what, name, got.Get(name), want)
			}
		}
		policy := got.Get("Content-Security-Policy")
		if !regexp.MustCompile(`^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; form-action 'self'; base-uri 'none'; frame-ancestors 'none'$`).MatchString(policy) {
			t.Errorf("%s: %s", what, policy)
		}
	}
}
