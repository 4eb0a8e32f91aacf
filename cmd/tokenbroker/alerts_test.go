package main_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

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
	// All at once, as they mostly wait, and not one after the other behind the other
	// parallel tests.
	var playing sync.WaitGroup
	for _, each := range stages {
		playing.Go(func() {
			t.Run(each.name, func(t *testing.T) {
				s := &stage{t: t, rules: rules, runbook: entries}
				each.play(s)
				mu.Lock()
				defer mu.Unlock()
				ran++
				maps.Copy(played, s.played)
			})
		})
	}
	playing.Wait()
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
	s.forget()
	tr.provoke()
	s.awaitFiring(tr.fires...)
	s.follow(tr.fires, stepLook)
	if tr.others != nil {
		tr.others()
	}
	s.follow(tr.fires, stepMend)
	s.awaitGone(tr.fires...)
	s.follow(tr.fires, stepOver)
}

func (s *stage) follow(entries []string, step string) {
	s.t.Helper()
	for _, alert := range entries {
		if commands := s.runbook[alert][step]; commands != "" {
			s.run(alert, step, commands)
		}
	}
}

// firms names n tenants.
func firms(n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("firm-%d", i))
	}
	return ids
}
