package token

// Kept is all that a fleet keeps of one key.
type Kept struct {
	// Token and Failure are nil if there is none.
	Token   *Token
	Failure *Failure
	// History counts the exchanges of the last day.
	History History
}

// HistoryHours is how many hours a History counts.
const HistoryHours = 24

// History counts exchanges by the hour, the oldest first. The last hour is the one
// under way, so it is seldom a whole one.
type History [HistoryHours]Exchanges

// Exchanges counts those that brought a token, and those that failed.
type Exchanges struct{ OK, Failed int }

// Sum returns the exchanges of all hours together.
func (h *History) Sum() (sum Exchanges) {
	for _, hour := range h {
		sum.OK += hour.OK
		sum.Failed += hour.Failed
	}
	return sum
}
