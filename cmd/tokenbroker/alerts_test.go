package main_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// notYet are alerts that go by a metric which the binary does not have yet, and are not
// played until it has.
var notYet = map[string]string{
	"TokenBrokerNoReplicaReady":       "tokenbroker_ready",
	"TokenBrokerClientSecretOld":      "tokenbroker_tenant_client_secret_age_seconds",
	"TokenBrokerRedisAway":            "tokenbroker_change_stream_lag_seconds",
	"TokenBrokerChangesNotHeard":      "tokenbroker_change_stream_lag_seconds",
	"TokenBrokerRedisErrors":          "tokenbroker_redis_command_duration_seconds",
	"TokenBrokerRedisSlow":            "tokenbroker_redis_command_duration_seconds",
	"TokenBrokerRegistryLost":         "tokenbroker_registry_lost",
	"TokenBrokerSealedRecordsRefused": "tokenbroker_sealed_records_refused_total",
	"TokenBrokerCertificateEnds":      "tokenbroker_certificate_expiry_timestamp_seconds",
	"TokenBrokerCertificateEndsNow":   "tokenbroker_certificate_expiry_timestamp_seconds",
}

// stages are fleets that are broken in one way after the other. What would disturb each
// other is on different ones. Those that take longest begin.
var stages = []struct {
	name string
	play func(*stage)
}{
	{"every minute", playMinutes},
	{"a guarded replica", playGuarded},
	{"Redis", playRedis},
	{"a fleet", playFleet},
	{"the issuer", playIssuer},
	{"a tenant", playTenant},
}

// TestEveryAlertFiresAndItsRunbookMendsIt provokes the fault of each alert, waits until a
// real Prometheus with the rules that are shipped fires it, does what docs/operations.md
// says, and waits until it is gone.
func TestEveryAlertFiresAndItsRunbookMendsIt(t *testing.T) {
	t.Parallel()
	rules, entries := rulesFile(t), runbook(t)
	var mu sync.Mutex
	ran, played := 0, map[string]bool{}
	t.Run("stages", func(t *testing.T) {
		for _, each := range stages {
			t.Run(each.name, func(t *testing.T) {
				t.Parallel()
				s := &stage{t: t, rules: rules, runbook: entries}
				each.play(s)
				mu.Lock()
				defer mu.Unlock()
				ran++
				maps.Copy(played, s.played)
			})
		}
	})
	for _, alert := range alertNames(rules) {
		if ran == len(stages) && !played[alert] {
			t.Errorf("nothing provokes %s", alert)
		}
	}
}

// TestEveryAlertHasAnEntryOfTheRunbook compares the rules with docs/operations.md.
func TestEveryAlertHasAnEntryOfTheRunbook(t *testing.T) {
	t.Parallel()
	rules, entries := rulesFile(t), runbook(t)
	alerts := alertNames(rules)
	for _, alert := range alerts {
		e, ok := entries[alert]
		if !ok || e[stepLook] == "" {
			t.Errorf("docs/operations.md does not say how to look when %s fires", alert)
		}
		if !strings.Contains(rules, "runbook_url: docs/operations.md#"+strings.ToLower(alert)+"\n") {
			t.Errorf("%s does not lead to its entry", alert)
		}
	}
	for alert := range entries {
		if !slices.Contains(alerts, alert) {
			t.Errorf("docs/operations.md has an entry for %s, which there is not", alert)
		}
	}
}

// stage is a fleet with a Prometheus that watches over it, and an operator.
type stage struct {
	t       *testing.T
	rules   string
	runbook map[string]entry
	*monitor
	*desk
	played map[string]bool
}

// trouble is a fault, and what is done about it.
type trouble struct {
	// fires are the alerts that it is for. Their entries are followed, in this order.
	fires []string
	// provoke brings it.
	provoke func()
	// others is what they do whom an entry names, after the operator has looked; nil:
	// nobody has to do anything.
	others func()
}

// meet has the operator go through a trouble.
func (s *stage) meet(tr trouble) {
	s.t.Helper()
	if s.played == nil {
		s.played = map[string]bool{}
	}
	for _, alert := range tr.fires {
		s.played[alert] = true
	}
	fires := slices.DeleteFunc(slices.Clone(tr.fires), s.lacks)
	if len(fires) == 0 {
		return
	}
	s.forget()
	tr.provoke()
	s.awaitFiring(fires...)
	s.follow(fires, stepLook)
	if tr.others != nil {
		tr.others()
	}
	s.follow(fires, stepMend)
	s.awaitGone(fires...)
	s.follow(fires, stepOver)
}

func (s *stage) follow(entries []string, step string) {
	s.t.Helper()
	for _, alert := range entries {
		if commands := s.runbook[alert][step]; commands != "" {
			s.run(alert, step, commands)
		}
	}
}

// lacks says whether the alert goes by a metric that the binary does not have yet.
func (s *stage) lacks(alert string) bool {
	metric, lacks := notYet[alert]
	if !lacks {
		return false
	}
	s.t.Logf("%s is not played: there is no %s yet", alert, metric)
	if shown := (&process{ops: s.targets[0]}).get("/metrics"); strings.Contains(shown, "# TYPE "+metric+" ") {
		s.t.Errorf("there is a %s by now: take %s out of notYet", metric, alert)
	}
	return true
}

// firms names n tenants.
func firms(n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("firm-%d", i))
	}
	return ids
}
