// Command alerts checks what Prometheus and Grafana are told of the brokers: the
// rules, with their tests, and the dashboard. Promtool says whether they are
// understood. That they name metrics which there are is looked up in the table of
// metrics.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: alerts DIRECTORY METRICS.md")
		os.Exit(2)
	}
	if err := check(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// query is an expression, and where it stands.
type query struct{ where, expr string }

func check(dir, table string) error {
	rulesFile := filepath.Join(dir, "prometheus", "rules.yaml")
	rules, recorded, err := readRules(rulesFile)
	if err != nil {
		return fmt.Errorf("%s: %w", rulesFile, err)
	}
	dashboardFile := filepath.Join(dir, "grafana", "tokenbroker.json")
	shown, err := readDashboard(dashboardFile)
	if err != nil {
		return fmt.Errorf("%s: %w", dashboardFile, err)
	}
	known, err := readTable(table)
	if err != nil {
		return err
	}
	return errors.Join(
		promtool("check", "rules", rulesFile),
		promtool("test", "rules", filepath.Join(dir, "prometheus", "rules_test.yaml")),
		parses(shown),
		named(append(rules, shown...), known, recorded),
	)
}

// promtool runs promtool, whose output is shown if it fails.
func promtool(args ...string) error {
	out, err := exec.Command("promtool", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("promtool %v: %w\n%s", args, err, out)
	}
	return nil
}

// readRules returns the queries of a rules file, and the names of what it records.
func readRules(path string) (queries []query, recorded []string, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Record, Expr string }
		}
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		return nil, nil, err
	}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			queries = append(queries, query{rule.Alert + rule.Record, rule.Expr})
			if rule.Record != "" {
				recorded = append(recorded, rule.Record)
			}
		}
	}
	return queries, recorded, nil
}

// parses has promtool read queries, as the rules that they are not.
func parses(queries []query) error {
	type rule struct {
		Record string            `json:"record"`
		Expr   string            `json:"expr"`
		Labels map[string]string `json:"labels"` // Where it stands: promtool says so.
	}
	type group struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	}
	g := group{Name: "dashboard"}
	for _, q := range queries {
		g.Rules = append(g.Rules, rule{"shown", q.expr, map[string]string{"where": q.where}})
	}
	content, err := json.Marshal(map[string][]group{"groups": {g}})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dashboard")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "dashboard.yaml")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return err
	}
	return promtool("check", "rules", "--lint=none", file)
}
