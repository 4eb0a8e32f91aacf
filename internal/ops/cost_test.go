package ops_test

import (
	"testing"

	"smokeball.internal/tokenbroker/internal/broker"
	"smokeball.internal/tokenbroker/internal/ops"
)

func TestWhatTokensCostAndWhatWasSaved(t *testing.T) {
	// One was bought ahead, one for a caller; the other answers took no exchange.
	stats := func() broker.Stats {
		return broker.Stats{Bought: 2, FromExchange: 1, FromMemory: 100, FromStore: 20, Joined: 3}
	}
	wantLines(t, shown(t, ops.CostMetrics(stats, 0.5)), "tokenbroker_token_cost_total 1\n", "tokenbroker_token_cost_saved_total 61.5\n")
}
