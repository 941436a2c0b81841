package acl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision/acl/ruleset"
)

const (
	// maxForeign bounds the rules of a foreign chain, and the elements of a foreign set,
	// that are looked at.
	maxForeign = 1 << 12
	// surveyLimit bounds one look at the other tables.
	surveyLimit = 2 * time.Second
	// surveyQuick is how long one may take without being made more rarely: others have to wait for it.
	surveyQuick = 100 * time.Millisecond
	// surveyShare is the part of the time that slower ones may take, as 1 of so many.
	surveyShare = 100
	// missedFor is how long it is told that connections passed the portal by.
	missedFor = 10 * time.Minute
)

// survey is what is known of other tables in the way of the portal.
type survey struct {
	found    []string
	missed   uint64 // connections that passed it by, as last read
	known    bool   // they were read: what the kernel counted before is of an earlier time
	missedAt time.Time
	next     time.Time // not before it is looked again
}

// Obstacles tells what of other tables keeps HTTP from the portal, as of the newest
// Observe; none if there is no portal.
func (t *Table) Obstacles() []string {
	return slices.Clone(t.lastKnown().obstacles)
}

// surveyLocked looks at the other tables, which it reads only. What cannot be read is
// no obstacle, and no error: the blocks do not depend on it.
func (t *Table) surveyLocked(ctx context.Context) {
	if t.policy.Portal.Port() == 0 {
		t.survey = survey{}
		return
	}
	began := time.Now()
	if began.Before(t.survey.next) || t.dialLocked() != nil {
		return
	}
	defer func() {
		if took := time.Since(began); took > surveyQuick {
			t.survey.next = began.Add(surveyShare * took)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, surveyLimit)
	defer cancel()
	chains, err := t.write.ListChains()
	if err != nil {
		_ = t.hangUpLocked()
		t.log.Debug("other tables cannot be looked at", "error", err)
		return
	}
	found := ruleset.Obstacles(t.policy, chains, &foreign{ctx: ctx, t: t, rules: map[string][]*nftables.Rule{}})
	if n, ok := t.missedLocked(); ok {
		if t.survey.known && n > t.survey.missed {
			t.survey.missedAt = time.Now()
		}
		t.survey.missed, t.survey.known = n, true
	}
	if len(found) == 0 && !t.survey.missedAt.IsZero() && time.Since(t.survey.missedAt) < missedFor {
		found = append(found, fmt.Sprintf("HTTP of subscribers that should have come to the portal was forwarded, and refused, within the last %s: something else takes the packets before it or hides them from address translation",
			missedFor))
	}
	if len(found) > 0 && !slices.Equal(found, t.survey.found) {
		t.log.Warn("another table keeps HTTP from the portal", "findings", found)
	}
	t.survey.found = found
}

// missedLocked reads how many connections passed the portal by.
func (t *Table) missedLocked() (n uint64, ok bool) {
	for _, r := range ruleset.Rules(t.policy) {
		if !r.Missed() {
			continue
		}
		if t.dialLocked() != nil { // what was read before it may have failed
			return 0, false
		}
		rules, err := t.write.GetRules(ruleset.Table(), &nftables.Chain{Table: ruleset.Table(), Name: r.Chain})
		if err != nil {
			_ = t.hangUpLocked()
			return 0, false
		}
		for _, have := range rules {
			if string(have.UserData) != string(r.UserData()) {
				continue
			}
			for _, e := range have.Exprs {
				if c, is := e.(*expr.Counter); is {
					n += c.Packets
				}
			}
		}
	}
	return n, true
}

// foreign reads other tables for one look.
type foreign struct {
	ctx   context.Context
	t     *Table
	rules map[string][]*nftables.Rule
	read  int // rules and elements so far
}

// Rules implements ruleset.Foreign.
func (f *foreign) Rules(table *nftables.Table, chain string) []*nftables.Rule {
	key := fmt.Sprintf("%d %s %s", table.Family, table.Name, chain)
	if have, ok := f.rules[key]; ok {
		return have
	}
	f.rules[key] = nil
	if f.ctx.Err() != nil || f.read > 4*maxForeign || f.t.dialLocked() != nil {
		return nil
	}
	rules, err := f.t.write.GetRules(table, &nftables.Chain{Table: table, Name: chain})
	if err != nil {
		_ = f.t.hangUpLocked()
		return nil
	}
	f.read += len(rules)
	if len(rules) > maxForeign {
		return nil
	}
	f.rules[key] = append([]*nftables.Rule{}, rules...) // not nil: it was read
	return f.rules[key]
}

// errTooMany ends the reading of a foreign set.
var errTooMany = errors.New("too many elements to look at")

// Elements implements ruleset.Foreign. It reads as much of a set as it looks at, and of a
// larger one nothing where the kernel tells how many there are.
func (f *foreign) Elements(table *nftables.Table, set string) ([]nftables.SetElement, bool) {
	if f.ctx.Err() != nil || f.read > 4*maxForeign {
		return nil, false
	}
	info, err := f.t.setInLocked(f.ctx, table, set)
	if err != nil || info.count > maxForeign {
		return nil, false
	}
	var out []nftables.SetElement
	_, err = f.t.elementsInLocked(f.ctx, table, set, func(e element) error {
		if f.read++; len(out) == maxForeign {
			return errTooMany
		}
		out = append(out, nftables.SetElement{Key: slices.Clone(e.key), IntervalEnd: e.flags&unix.NFT_SET_ELEM_INTERVAL_END != 0, VerdictData: parseVerdict(e.verdict)})
		return nil
	})
	return out, err == nil
}

// parseVerdict reads the value of a map of verdicts, which the library leaves as the kernel
// gives it; nil: it is none.
func parseVerdict(b []byte) *expr.Verdict {
	var v *expr.Verdict
	chain := ""
	err := eachAttr(b, func(typ uint16, value []byte) error {
		switch {
		case typ == unix.NFTA_VERDICT_CODE && len(value) == 4:
			v = &expr.Verdict{Kind: expr.VerdictKind(int32(binary.BigEndian.Uint32(value)))}
		case typ == unix.NFTA_VERDICT_CHAIN:
			chain = strings.TrimRight(string(value), "\x00")
		}
		return nil
	})
	if err != nil || v == nil {
		return nil
	}
	v.Chain = chain
	return v
}
