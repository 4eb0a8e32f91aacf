package main_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/token"
)

const metricsPage = "docs/metrics.md"

// labels says what values the labels have: those there are, or in words where
// they cannot be listed. A label of one metric goes before one of all.
func labels() (values map[string][]string, words map[string]string) {
	texts := func(all ...string) []string { return all }
	outcomes, states := texts("ok"), texts()
	for _, class := range token.Classes() {
		outcomes = append(outcomes, string(class))
	}
	for _, state := range broker.IssuerStates() {
		states = append(states, string(state))
	}
	return map[string][]string{
			"tokenbroker_answers_total from":                               texts("memory", "store", "exchange", "waited"),
			"tokenbroker_audit_records_total outcome":                      texts("written", "dropped"),
			"tokenbroker_certificate_expiry_timestamp_seconds certificate": texts("server", "client_ca"),
			"tokenbroker_exchange_duration_seconds outcome":                outcomes,
			"tokenbroker_exchanges_put_off_total because":                  texts("budget", "rest"),
			"tokenbroker_exchanges_total outcome":                          outcomes,
			"tokenbroker_issuer_state state":                               states,
			"tokenbroker_redis_command_duration_seconds command":           redisstore.Commands(),
			"tokenbroker_redis_command_duration_seconds outcome":           texts("ok", "error"),
			"tokenbroker_redis_pool_connections state":                     texts("idle", "in_use"),
			"tokenbroker_redis_warnings kind":                              redisstore.WarningKinds(),
			"tokenbroker_sealed_records_refused_total kind":                texts("tenant", "token", "failure"),
			"grpc_type": texts("unary", "client_stream", "server_stream", "bidi_stream"),
		}, map[string]string{
			"issuer":       "host of a token endpoint",
			"tenant":       "id, of ten at most",
			"setting":      "flag that names what is read again when it changes",
			"reason":       "`ErrorInfo.reason`, or a code of gRPC",
			"version":      "of `tokenbroker`",
			"goversion":    "of Go",
			"grpc_service": "name",
			"grpc_method":  "name",
			"grpc_code":    "a code of gRPC",
		}
}

// units has those that the name of a metric does not say.
var units = map[string]string{
	"tokenbroker_exchange_rate_limit":    "exchanges per second",
	"tokenbroker_token_cost_total":       "currency of `--token-price`",
	"tokenbroker_token_cost_saved_total": "currency of `--token-price`",
}

func unitOf(m *dto.MetricFamily) string {
	name, help := m.GetName(), m.GetHelp()
	switch unit, known := units[name]; {
	case known:
		return unit
	case strings.HasSuffix(name, "_timestamp_seconds"):
		return "Unix time, seconds"
	case strings.HasSuffix(name, "_seconds"):
		return "seconds"
	case strings.HasPrefix(help, "Whether "):
		return "0 or 1"
	default:
		return "number"
	}
}

// TestTheTableOfMetrics compares the table with what a replica shows on /metrics
// that has done a little of everything, and with each name of a metric in the source.
// And the names are as is usual.
func TestTheTableOfMetrics(t *testing.T) {
	t.Parallel()
	families := metricsOf(t)
	content, err := os.ReadFile(filepath.Join(root, metricsPage))
	if err != nil {
		t.Fatal(err)
	}
	part := regexp.MustCompile(`(?s)\| metric \|.*?\n\n`)
	table := metricsTable(t, families) + "\n"
	if *update {
		content = part.ReplaceAllLiteral(content, []byte(table))
		if err := os.WriteFile(filepath.Join(root, metricsPage), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if part.FindString(string(content)) != table {
		t.Errorf("the table in %s should be (make metrics):\n%s", metricsPage, table)
	}
	for name, file := range metricsInSource(t) {
		if !strings.Contains(table, "| `"+name+"` |") {
			t.Errorf("%s in %s is not in the table: have this test provoke it", name, file)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(families))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetricsFollowTheSettings(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	p := start(t, serveArgs(redis.URL(), keysetFile(t), startIssuer(t), "--token-price=0", "--exchange-rate=12.5")...).ready()
	page := p.get("/metrics")
	if !strings.Contains(page, "\ntokenbroker_exchange_rate_limit 12.5\n") {
		t.Error("the exchange rate is another than was set")
	}
	for _, absent := range []string{"tokenbroker_token_cost", "tokenbroker_certificate"} {
		if strings.Contains(page, absent) {
			t.Errorf("%s is shown without a price or a certificate", absent)
		}
	}
}

// metricsOf returns what a replica shows, but for what every Go process does.
func metricsOf(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	g := startGuarded(t, "", withTokens)
	register(t, g.as(everything), g.issuer, "acme", time.Hour)
	g.terminate() // The ages of secrets are read at the start, and then each minute.
	g.process = start(t, g.args...).ready()
	until(t, "the ages of secrets", func() bool {
		return strings.Contains(g.get("/metrics"), "tokenbroker_tenant_client_secret_age_seconds{")
	})
	conn := g.as(everything)
	for range 2 { // The second time, the token is in use.
		if _, err := pb.NewTokenServiceClient(conn).GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/acme"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := pb.NewTokenServiceClient(g.dial(nil, "")).GetToken(soon(t), &pb.GetTokenRequest{Tenant: "tenants/acme"}); err == nil {
		t.Fatal("nobody was given a token")
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(g.get("/metrics")))
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(families, func(name string, _ *dto.MetricFamily) bool {
		return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")
	})
	return families
}

// metricsTable returns the table of these metrics, the broker's own first.
func metricsTable(t *testing.T, families map[string]*dto.MetricFamily) string {
	t.Helper()
	var table strings.Builder
	table.WriteString("| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n")
	names := slices.SortedFunc(maps.Keys(families), func(a, b string) int {
		if own := strings.HasPrefix(a, "tokenbroker_"); own != strings.HasPrefix(b, "tokenbroker_") {
			return map[bool]int{true: -1, false: 1}[own]
		}
		return strings.Compare(a, b)
	})
	cell := strings.NewReplacer("|", `\|`, "<", "&lt;")
	for _, name := range names {
		m := families[name]
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", name, strings.ToLower(m.GetType().String()), labelsOf(t, m), unitOf(m), cell.Replace(m.GetHelp()))
	}
	table.WriteString("| `go_*`, `process_*` | | | | The Go runtime and the process, as [client_golang](https://pkg.go.dev/github.com/prometheus/client_golang/prometheus/collectors) shows them. |\n")
	return table.String()
}

// labelsOf returns the labels of a metric with the values that they have, and sees
// that they have no others.
func labelsOf(t *testing.T, m *dto.MetricFamily) string {
	t.Helper()
	values, words := labels()
	said := map[string]string{}
	for _, one := range m.GetMetric() {
		for _, label := range one.GetLabel() {
			name := label.GetName()
			listed, ok := values[m.GetName()+" "+name]
			if !ok {
				listed, ok = values[name]
			}
			switch inWords := words[name]; {
			case ok && !slices.Contains(listed, label.GetValue()):
				t.Errorf("%s has %s=%q, which is not among %q", m.GetName(), name, label.GetValue(), listed)
			case ok:
				said[name] = "`" + strings.Join(listed, "` `") + "`"
			case inWords != "":
				said[name] = inWords
			default:
				t.Errorf("%s has a label %q, and this test does not know its values", m.GetName(), name)
			}
		}
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(said)) {
		all = append(all, "**"+name+"**: "+said[name])
	}
	return strings.Join(all, "; ")
}

var metricName = regexp.MustCompile(`"(tokenbroker_[a-z0-9_]+)"`)

// metricsInSource returns each name of a metric in the program's source, with a
// file that it is in.
func metricsInSource(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range []string{"cmd", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			for _, name := range metricName.FindAllStringSubmatch(string(content), -1) {
				found[name[1]] = path
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(found) < 20 {
		t.Errorf("only %d metrics in the source", len(found))
	}
	return found
}
