package syncer

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// heldTimes is an Observer that writes down what was held from when to when.
type heldTimes struct {
	noObserver
	mu   sync.Mutex
	list []heldTime
	open bool
}

type heldTime struct {
	kinds    string
	from, to time.Time
}

func (h *heldTimes) Held(st *HeldStatus) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case st == nil && h.open:
		h.list[len(h.list)-1].to, h.open = time.Now(), false
	case st != nil && !h.open:
		var kinds []string
		for _, k := range changeKinds {
			if st.Decision.Of(k).Over {
				kinds = append(kinds, string(k))
			}
		}
		h.list, h.open = append(h.list, heldTime{kinds: strings.Join(kinds, " "), from: time.Now()}), true
	}
}

// A month of a billing ISP: debtors are paused in the night to the 1st, the bank's file lets many in on the 3rd, people pay, move and sign
// contracts each day, and an import goes wrong each week. What is wrong is held, nothing else is, and nobody feels it.
func TestAMonthOfBilling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const customers = 200
		at := func(day, hour, minute int) time.Time {
			return time.Date(2000, time.March, day, hour, minute, 0, 0, time.Local)
		}
		time.Sleep(time.Until(at(1, 0, 0).Add(-time.Hour + 7*time.Minute))) // polls come at 7, 22, 37 and 52 minutes, whole ones at 7
		b, seen := newBooks(customers), &heldTimes{}
		s := New(Options{PollInterval: 15 * time.Minute, RefreshInterval: time.Hour, Guard: GuardLimits{
			MaxRemoved: 0.1, MaxMoved: 0.1, MaxBlocked: 0.1, MaxOpened: 0.1, MaxAdded: 0.25, MinChanged: 20,
			Expected: []ExpectedChanges{{Days: []int{1}, Hours: DayHours{0, 6 * time.Hour}, Changes: []ChangeKind{ChangeBlocked, ChangeOpened}, Share: 0.6}},
		}}, b, nil, seen, provisiontest.Quiet())
		runSyncer(t, s)

		wrong := map[int]func(in *provision.Input){
			4: func(in *provision.Input) { in.Lines = in.Lines[len(in.Lines)/2:] },
			11: func(in *provision.Input) {
				for i := range in.Subscribers {
					if i%5 < 2 && in.Subscribers[i].State == provision.StateActive {
						in.Subscribers[i].State = provision.StatePause
					}
				}
			},
			18: func(in *provision.Input) {
				for i := range in.Subscribers {
					in.Subscribers[i].State = provision.StateActive
				}
			},
			25: func(in *provision.Input) {
				for i := range 5000 {
					in.Lines = append(in.Lines, provision.Line{Subscriber: provision.SubscriberID(90_000 + i), Addresses: provision.Hosts4(provisiontest.IP(90_000 + i))})
				}
			},
		}
		next := provision.SubscriberID(5000) // contract
		for now := at(1, 0, 0); now.Before(at(32, 0, 0)); now = now.Add(time.Hour) {
			time.Sleep(time.Until(now))
			day, clock := now.Day(), now.Format("15:04")
			spoil := wrong[day]
			switch {
			case day == 1 && clock == "02:00":
				b.setStates(provision.StatePause, b.in(provision.StateActive, 90)...)
			case day == 3 && clock == "10:00":
				b.setStates(provision.StateActive, b.in(provision.StatePause, 60)...)
			case clock == "09:00":
				b.setStates(provision.StateActive, b.in(provision.StatePause, 1)...)
			case clock == "11:00":
				next++
				b.change(func(b *books) {
					b.truth.Lines = append(b.truth.Lines, provision.Line{Subscriber: next, Addresses: provision.Hosts4(provisiontest.IP(int(next))), Device: 1, Port: uint32(next)})
					b.truth.Subscribers = append(b.truth.Subscribers, provision.Subscriber{ID: next, State: provision.StateActive})
				})
			case clock == "12:00" && spoil != nil:
				b.setSpoil(spoil)
			case clock == "13:00": // also while an import is wrong
				id := provision.SubscriberID(1000 + customers - day)
				b.change(func(b *books) { b.line(id).MAC[5]++ })
				b.setStates(provision.StatePause, id)
				s.Hint(id)
			case clock == "14:00":
				b.setSpoil(nil)
			}
			pass(59 * time.Minute)
			truth, inUse := b.truthNow(), s.Current()
			if held := s.Status().Held; held == nil {
				require.Equal(t, truth.Fingerprint(), inUse.Fingerprint(), "%s: all of it is in use", now)
				continue
			}
			require.NotNil(t, spoil, "%s: held, and nothing is wrong: %s", now, s.Status().Held.Decision.Reason)
			for ip, l := range truth.Hosts4() {
				require.Equal(t, *l, *inUse.ByIP(ip), "%s", now)
				require.Equal(t, truth.State(l.Subscriber), inUse.State(l.Subscriber), "%s: %d", now, l.Subscriber)
			}
			require.Equal(t, truth.Len(), inUse.Len())
		}

		seen.mu.Lock()
		defer seen.mu.Unlock()
		require.False(t, seen.open)
		var kinds []string
		for _, h := range seen.list {
			kinds = append(kinds, h.kinds)
			if day := h.from.In(time.Local).Day(); wrong[day] != nil {
				assert.WithinRange(t, h.from, at(day, 12, 0), at(day, 13, 0))
				assert.WithinRange(t, h.to, at(day, 14, 0), at(day, 14, 15))
			} else {
				assert.Equal(t, 3, day)
				assert.LessOrEqual(t, h.to.Sub(h.from), openingGap, "cards confirm what the bank says")
			}
		}
		assert.Equal(t, []string{"opened", "removed", "blocked", "opened", "added"}, kinds)
		assert.Nil(t, s.Status().Unconfirmed)
	})
}

// truthNow returns the snapshot that a right answer would make.
func (b *books) truthNow() *provision.Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	in := b.truth
	in.Lines, in.Subscribers = slices.Clone(in.Lines), slices.Clone(in.Subscribers)
	snap, _ := provision.Build(in)
	return snap
}
