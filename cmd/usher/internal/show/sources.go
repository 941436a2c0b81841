package show

import (
	"fmt"
	"time"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/provision/syncer"
)

// slowRound is how long the reading of all cards may take without a word.
const slowRound = 20 * time.Minute

// sourceRows tell of the ERP's sources: one line if all are good, else one of each that is not.
func sourceRows(p cli.Paint, list []syncer.SourceStatus, now time.Time) [][]string {
	var rows [][]string
	add := func(head, text string, colour func(string) string) {
		for i, part := range wrap(text, textWidth) {
			rows = append(rows, []string{[...]string{head, ""}[min(i, 1)], colour(part)})
		}
	}
	for _, st := range list {
		round := time.Duration(st.RoundSeconds * float64(time.Second))
		switch {
		case st.Bad():
			add(string(st.Source), sourceText(st, now), p.Red)
		case st.Judgement != syncer.JudgedGood || round > slowRound:
			text := sourceText(st, now)
			if round > 0 {
				text += fmt.Sprintf("; a full round of %d cards takes %s", st.Rows, round.Round(time.Minute))
			}
			add(string(st.Source), text, func(s string) string { return s })
		}
	}
	if len(rows) == 0 && len(list) > 0 {
		rows = append(rows, []string{"erp", fmt.Sprintf("all %d sources are good, the oldest read %s", len(list), cli.Ago(oldest(list), now))})
	}
	return rows
}

// sourceText says how a source stands.
func sourceText(st syncer.SourceStatus, now time.Time) string {
	text := string(st.Judgement)
	if st.Bad() {
		text += " since " + cli.Ago(st.Since, now)
		if st.GoodAt.IsZero() {
			text += ", none was ever good"
		} else {
			text += ", what was read " + cli.Ago(st.GoodAt, now) + " is in use"
		}
	}
	if st.Error != "" {
		text += ": " + st.Error
	}
	return text
}

func oldest(list []syncer.SourceStatus) time.Time {
	at := list[0].GoodAt
	for _, st := range list {
		if st.GoodAt.Before(at) {
			at = st.GoodAt
		}
	}
	return at
}
