package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// panel is a panel of a dashboard, as far as it is looked at.
type panel struct {
	ID          int
	Type, Title string
	Description string
	Datasource  source
	Targets     []struct {
		Expr, RefID string
		Datasource  source
	}
	GridPos struct{ X, Y, W, H int }
	Panels  []panel // of a row that is collapsed
}

type source struct{ Type, UID string }

// readDashboard returns the queries of a dashboard, with values in place of Grafana's
// variables.
func readDashboard(path string) ([]query, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var dashboard struct {
		UID, Title    string
		SchemaVersion int
		Panels        []panel
		Templating    struct {
			List []struct{ Name, Type string }
		}
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		return nil, err
	}
	var found []error
	if dashboard.UID == "" || dashboard.Title == "" || dashboard.SchemaVersion < 38 {
		found = append(found, errors.New("no uid, no title, or a schema before Grafana 10"))
	}
	// The interval is Grafana's own.
	variables := []string{"$__rate_interval", "5m"}
	for _, v := range dashboard.Templating.List {
		if v.Type != "datasource" {
			variables = append(variables, "$"+v.Name, ".*")
		}
	}
	replacer := strings.NewReplacer(variables...)
	var queries []query
	ids := map[int]bool{}
	for _, p := range flat(dashboard.Panels) {
		if ids[p.ID] {
			found = append(found, fmt.Errorf("two panels have the id %d", p.ID))
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			found = append(found, fmt.Errorf("panel %d (%s): no title, no description, no query, or out of the grid", p.ID, p.Title))
		}
		for _, target := range p.Targets {
			where := p.Title + " " + target.RefID
			if target.Datasource.UID != "${datasource}" || p.Datasource.UID != "${datasource}" {
				found = append(found, fmt.Errorf("%s: not of the data source that is chosen", where))
			}
			expr := replacer.Replace(target.Expr)
			if strings.Contains(expr, "$") {
				found = append(found, fmt.Errorf("%s: a variable that there is not: %s", where, expr))
			}
			queries = append(queries, query{where, expr})
		}
	}
	return queries, errors.Join(found...)
}

func flat(panels []panel) []panel {
	var all []panel
	for _, p := range panels {
		all = append(append(all, p), flat(p.Panels)...)
	}
	return all
}
