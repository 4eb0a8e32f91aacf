package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The rules look back for minutes to days, and wait for as long, which no test can.
// So their times are divided by sped, but never less than these, with which Prometheus,
// scraping every second, still has something to look at, and never more. What they say
// and compare with stays as it is, but for quickened.
const (
	sped                           = 60
	shortestRange, longestRange    = 5 * time.Second, 15 * time.Second
	shortestWait, longestWait      = time.Second, 3 * time.Second
	prometheusStep                 = time.Second
	firesWithin, firingStopsWithin = 100 * time.Second, 100 * time.Second
	staysGone                      = 5 * time.Second
)

// quickened are the thresholds that are times themselves, or counts within them, and by
// what a test replaces them.
var quickened = map[string]struct{ rule, test string }{
	"TokenBrokerTokenEnding":     {"< 600", "< 3"},       // Tokens live for 24 seconds in place of an hour, and five are left at least when they are replaced.
	"TokenBrokerClientSecretOld": {"> 31536000", "> 65"}, // It is read every minute: not before the first time, and gone with the second.
	"TokenBrokerChangesNotHeard": {"> 60", "> 3"},        // It is half a second where all is well.
	"TokenBrokerRedisAway":       {"> 60", "> 3"},        // The same.
	// In 15 seconds in place of an hour.
	"TokenBrokerBoughtTooOften": {"+ 2 * (max(tokenbroker_client_secret_age_seconds_count) or vector(0)) + 100", "+ 1"},
}

// rulesFile returns the rules as they are shipped.
func rulesFile(t testing.TB) string {
	t.Helper()
	return readShipped(t, "prometheus/rules.yaml")
}

var (
	alertName = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)
	rangeOf   = regexp.MustCompile(`\[(\w+)(?::(\w+))?\]`)
	waitsFor  = regexp.MustCompile(`(?m)^( +for): (\w+)$`)
)

// alertNames returns the alerts of the rules.
func alertNames(rules string) []string {
	var names []string
	for _, match := range alertName.FindAllStringSubmatch(rules, -1) {
		names = append(names, match[1])
	}
	return names
}

// quicken returns the rules for a test.
func quicken(t testing.TB, rules string) string {
	t.Helper()
	for alert, threshold := range quickened {
		begin := strings.Index(rules, "- alert: "+alert+"\n")
		if begin < 0 {
			t.Fatalf("there is no alert %s", alert)
		}
		before, rule := rules[:begin], rules[begin:]
		if !strings.Contains(rule[:strings.Index(rule, "runbook_url")], threshold.rule) {
			t.Fatalf("%s does not say %s", alert, threshold.rule)
		}
		rules = before + strings.Replace(rule, threshold.rule, threshold.test, 1)
	}
	rules = rangeOf.ReplaceAllStringFunc(rules, func(s string) string {
		match := rangeOf.FindStringSubmatch(s)
		of := inSeconds(divided(t, match[1], shortestRange, longestRange))
		if match[2] != "" {
			return "[" + of + ":" + inSeconds(prometheusStep) + "]"
		}
		return "[" + of + "]"
	})
	return waitsFor.ReplaceAllStringFunc(rules, func(s string) string {
		match := waitsFor.FindStringSubmatch(s)
		return match[1] + ": " + inSeconds(divided(t, match[2], shortestWait, longestWait))
	})
}

// divided returns a time of Prometheus's, such as 5m or 14d, as a test has it.
func divided(t testing.TB, text string, least, most time.Duration) time.Duration {
	t.Helper()
	if days, ok := strings.CutSuffix(text, "d"); ok {
		text = days + "h" // For what is beyond most, it is the same.
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return min(max(d/sped, least), most)
}

func inSeconds(d time.Duration) string { return fmt.Sprintf("%ds", int(d.Seconds())) }

// monitor is a Prometheus that watches over some replicas.
type monitor struct {
	t       testing.TB
	addr    string
	targets []string // addresses that it scrapes

	mu   sync.Mutex
	seen map[string]bool // that fired since it was last asked
}

// watchOver starts a Prometheus that scrapes these addresses, with the rules that are
// shipped, quickened. It ends with the test.
func watchOver(t testing.TB, targets ...string) *monitor {
	t.Helper()
	path, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatalf("tests need prometheus, which `make test` installs: %v", err)
	}
	dir := t.TempDir()
	addresses, _ := json.Marshal(targets)
	for name, content := range map[string]string{
		"rules.yaml": quicken(t, rulesFile(t)),
		"prometheus.yaml": fmt.Sprintf(`
global: {scrape_interval: %[1]s, scrape_timeout: %[1]s, evaluation_interval: %[1]s}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: tokenbroker
    static_configs: [{targets: %[2]s}]
`, inSeconds(prometheusStep), addresses),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &monitor{t: t, addr: loopbackAddress(t), targets: targets, seen: map[string]bool{}}
	var log logBuffer
	cmd := exec.Command(path, "--config.file="+filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+m.addr, "--log.level=warn")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	watching := make(chan struct{})
	t.Cleanup(func() {
		close(watching)
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("log of Prometheus:\n%s", log.String())
		}
	})
	until(t, "answered by Prometheus", func() bool { _, err := m.firing(); return err == nil })
	go m.look(watching)
	return m
}

// look notes what fires.
func (m *monitor) look(until <-chan struct{}) {
	for {
		select {
		case <-until:
			return
		case <-time.After(prometheusStep / 4):
		}
		firing, err := m.firing()
		if err != nil {
			continue
		}
		m.mu.Lock()
		for alert := range firing {
			m.seen[alert] = true
		}
		m.mu.Unlock()
	}
}

// firing returns the alerts that fire now.
func (m *monitor) firing() (map[string]bool, error) {
	resp, err := http.Get("http://" + m.addr + "/api/v1/alerts")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Data struct {
			Alerts []struct {
				Labels struct{ Alertname string }
				State  string
			}
		}
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		return nil, err
	}
	firing := map[string]bool{}
	for _, alert := range answer.Data.Alerts {
		if alert.State == "firing" {
			firing[alert.Labels.Alertname] = true
		}
	}
	return firing, nil
}

// awaitFiring waits until each of the alerts has fired since forget.
func (m *monitor) awaitFiring(alerts ...string) {
	m.t.Helper()
	m.await("has not fired", firesWithin, alerts, func(alert string) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.seen[alert]
	})
}

// awaitGone waits until none of the alerts fires, and for a while none has fired again:
// what is mended only half may stop for a moment.
func (m *monitor) awaitGone(alerts ...string) {
	m.t.Helper()
	for gone := time.Now(); time.Since(gone) < staysGone; {
		m.await("still fires", firingStopsWithin, alerts, func(alert string) bool {
			firing, err := m.firing()
			if err != nil || firing[alert] {
				gone = time.Now()
				return false
			}
			return true
		})
		<-time.After(prometheusStep / 4)
	}
}

func (m *monitor) await(not string, within time.Duration, alerts []string, so func(alert string) bool) {
	m.t.Helper()
	deadline := time.Now().Add(within)
	for _, alert := range alerts {
		for !so(alert) {
			if time.Now().After(deadline) {
				m.t.Fatalf("%s %s after %v", alert, not, within)
			}
			<-time.After(prometheusStep / 4)
		}
	}
}

// forget has what fired up to now not count.
func (m *monitor) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.seen)
}
