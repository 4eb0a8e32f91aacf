package statuspage

import (
	"cmp"
	"context"
	"html/template"
	"iter"
	"net/url"
	"slices"
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/tenant"
)

const (
	pageSize = 50
	// How many of those in trouble are shown above the list, and how many alone.
	fewTroubles  = 8
	manyTroubles = 200
)

// content is what is on the page.
type content struct {
	Style             template.CSS
	Version           string
	Title             string
	Refresh           bool
	RefreshLink       string
	Home, AllTroubles string // links
	Made              stamp
	Took              string

	Health []chip
	Notes  []string // what is wrong with Redis

	ShowTroubles bool // the tenants in trouble and no others
	Troubles     []row
	TroubleCount string // empty: there are none
	MoreTroubles string // how many are not shown; empty: none

	Query       string
	Total       string // how many tenants there are; empty: that is not known, or not told
	Rows        []row
	Away        bool   // Redis is, and what is shown is this replica's alone
	Next, First string // links; empty: there is no such page

	Replicas      []replicaRow
	ReplicaCount  int
	ReplicasKnown bool
}

// gather puts together what a viewer sees.
func (p *Page) gather(ctx context.Context, v *viewer, q query) *content {
	began := time.Now()
	c := &content{Style: template.CSS(style), Version: p.config.Version, Query: q.part, Refresh: q.refresh, ShowTroubles: q.trouble, Made: at(began)}
	c.Home = query{refresh: q.refresh}.link()
	c.AllTroubles = query{refresh: q.refresh, trouble: true}.link()
	other := q
	other.refresh = !q.refresh
	c.RefreshLink = other.link()

	pinged := time.Now()
	err := p.config.Redis.Ping(ctx)
	c.Away = err != nil
	c.Health = p.health(err, time.Since(pinged))
	if !c.Away {
		c.Notes = p.config.Redis.Warnings()
	}

	troubles := p.troubles(v, q, c)
	var tenants []broker.View
	if !q.trouble {
		tenants = p.tenants(ctx, v, q, c)
	}
	views := slices.Concat(troubles, tenants)
	if !c.Away {
		c.away(p.config.Registry.Fill(ctx, views))
	}
	now := time.Now()
	for i, view := range views {
		if i < len(troubles) {
			c.Troubles = append(c.Troubles, rowOf(view, now, true))
		} else {
			c.Rows = append(c.Rows, rowOf(view, now, false))
		}
	}
	p.fleet(ctx, v, c)
	c.Took = milliseconds(time.Since(began))
	return c
}

// away notes that Redis could not be asked, if there is an error.
func (c *content) away(err error) bool {
	c.Away = c.Away || err != nil
	return err != nil
}

// tenants returns the page of the list that is asked for: from Redis, else from
// memory.
func (p *Page) tenants(ctx context.Context, v *viewer, q query, c *content) (views []broker.View) {
	// It returns whether there may be room for another.
	add := func(t *tenant.Tenant) bool {
		switch {
		case !v.sees(t), len(t.ID) > maxID: // No id is so long: somebody has put it into Redis.
		case len(views) == pageSize:
			next := q
			// Behind one that is shown: the link would tell of one that is not.
			next.after = views[pageSize-1].Tenant.ID
			c.Next = next.link()
			return false
		default:
			views = append(views, p.config.Registry.View(t))
		}
		return true
	}
	if !c.Away {
		for t, err := range p.config.Registry.List(ctx, q.part, q.after, pageSize+1) {
			if c.away(err) || !add(t) {
				break
			}
		}
	}
	if c.Away {
		views, c.Next = nil, ""
		for t := range p.config.Registry.Remembered(q.part, q.after) {
			if !add(t) {
				break
			}
		}
	}
	if q.after != "" {
		first := q
		first.after = ""
		c.First = first.link()
	}
	return views
}

// troubles returns the tokens that this replica has most trouble with, the worst
// first.
func (p *Page) troubles(v *viewer, q query, c *content) []broker.View {
	most := fewTroubles
	if q.trouble {
		most = manyTroubles
	}
	worst, n := worstOf(p.config.Registry.Troubled(v.sees), most, time.Now())
	if n > 0 {
		c.TroubleCount = count(n)
	}
	if more := n - len(worst); more > 0 {
		c.MoreTroubles = count(more)
	}
	c.Title = title(n)
	return worst
}

// worstOf returns the worst of all, and how many there are.
func worstOf(all iter.Seq[broker.View], most int, now time.Time) (worst []broker.View, count int) {
	for view := range all {
		count++
		i, _ := slices.BinarySearchFunc(worst, view, func(a, b broker.View) int { return worse(a, b, now) })
		if i < most {
			worst = slices.Insert(worst, i, view)
			worst = worst[:min(len(worst), most)]
		}
	}
	return worst, count
}

// worse orders tokens in trouble: those that nobody can have first, then by when
// they end.
func worse(a, b broker.View, now time.Time) int {
	ends := func(v broker.View) time.Time {
		if v.Token.Usable(now, 0) {
			return v.Token.SafeEnd()
		}
		return time.Time{}
	}
	return cmp.Or(ends(a).Compare(ends(b)), cmp.Compare(a.Tenant.ID, b.Tenant.ID), slices.Compare(a.Scopes, b.Scopes))
}

// health returns whether this replica, Redis and the issuers serve.
func (p *Page) health(redis error, took time.Duration) []chip {
	var chips []chip
	hindrances := p.config.Hindrances()
	for _, why := range hindrances {
		chips = append(chips, chip{Of: "This replica", Says: clip(why), State: bad})
	}
	if len(hindrances) == 0 {
		chips = append(chips, chip{Of: "This replica", Says: "ready", State: good})
	}
	stats := p.config.Stats()
	switch {
	case redis == nil:
		chips = append(chips, chip{Of: "Redis", Says: "answers in " + milliseconds(took), State: good})
	case stats.Deaf:
		chips = append(chips, chip{Of: "Redis", Says: "out of reach for so long that tenants in memory are not served any more", State: bad})
	default:
		chips = append(chips, chip{Of: "Redis", Says: "out of reach: tokens in memory are served", State: bad})
	}
	var issuers []chip
	for endpoint, state := range stats.Issuers {
		is := chip{Of: nameOf(endpoint), Says: "serves", State: good}
		switch state {
		case broker.Resting:
			is.Says, is.State = "fails for several tenants: it is given a rest", bad
		case broker.Tried:
			is.Says, is.State = "has failed: one exchange is tried", warn
		}
		issuers = append(issuers, is)
	}
	slices.SortFunc(issuers, func(a, b chip) int { return cmp.Compare(a.Of, b.Of) })
	return append(chips, issuers...)
}

// nameOf returns what operators know an issuer by: the host, and the path if it is
// not the usual one.
func nameOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return "An issuer"
	}
	return u.Host + strings.TrimSuffix(u.Path, "/oauth2/token")
}

// fleet adds what is known of the replicas, and how many tenants there are to those
// who see all.
func (p *Page) fleet(ctx context.Context, v *viewer, c *content) {
	if c.Away {
		return
	}
	if v.all() && !c.ShowTroubles {
		if n, err := p.config.Redis.CountTenants(ctx); err == nil {
			c.Total = count(n)
		}
	}
	replicas, n, err := p.config.Redis.Replicas(ctx)
	if err != nil {
		return
	}
	c.ReplicasKnown, c.ReplicaCount = true, n
	for _, r := range replicas {
		c.Replicas = append(c.Replicas, replicaRowOf(r))
	}
}
