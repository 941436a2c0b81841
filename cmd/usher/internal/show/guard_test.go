package show

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
)

// What is held is named customer by customer; what is not over its limit is said to be in use.
func TestPrintGuard(t *testing.T) {
	now := time.Now()
	g := &console.GuardView{Held: &syncer.HeldStatus{
		Fingerprint: "00112233", Since: now.Add(-time.Minute), Seen: 2, Counts: provision.Counts{Bindings: 90, Active: 60, Paused: 40},
		Decision: syncer.GuardDecision{Hold: true, Subscribers: 100, Reason: "would block 36 of 100 subscribers (36%), limit 10%",
			Moved:   syncer.GuardCount{Count: 1, Share: .01, Limit: .1, Examples: []provision.SubscriberID{7}},
			Blocked: syncer.GuardCount{Count: 36, Share: .36, Limit: .1, Over: true, Hour: 9, Examples: []provision.SubscriberID{10, 11}}},
		Openings: &syncer.OpeningStatus{CheckedAt: now.Add(-10 * time.Second), Asked: 20, Read: 19, Contradicted: []provision.SubscriberID{41, 42, 43, 44}},
	}}
	for i := range 27 {
		g.Changes = append(g.Changes, syncer.HeldChange{Subscriber: provision.SubscriberID(10 + i), Change: syncer.ChangeBlocked, State: provision.StatePause})
	}
	var out bytes.Buffer
	require.NoError(t, printGuard(&out, g))
	for _, want := range []string{
		"since        1m0s ago, the same came 2 times", "moves        1 of 100 subscribers (1.0%, limit 10.0%), such as [7]: in use",
		"blocks       36 of 100 subscribers (36.0%, limit 10.0%), 9 of them within the last hour, such as [10 11]\n",
		"customer 10  would be paused", "customer 29  would be paused", "and 7 more: --output json",
		"4 of 19 say that the customer is blocked, such as [41 42 43]: nobody is let in until that changes, 10s ago",
	} {
		assert.Contains(t, out.String(), want)
	}
	assert.NotContains(t, out.String(), "customer 30")

	g.Held.Openings = &syncer.OpeningStatus{CheckedAt: now.Add(-10 * time.Second), Error: "gateway time-out", OpensAt: now.Add(2*time.Minute + 500*time.Millisecond)}
	out.Reset()
	require.NoError(t, printGuard(&out, g))
	assert.Contains(t, out.String(), "cannot be read: gateway time-out, 10s ago; if it stays so, all are opened in 2m")
}

// What an operator rejected is named, also while the ERP does not say it.
func TestPrintRejected(t *testing.T) {
	no := []syncer.HeldChange{{Subscriber: 7, Change: syncer.ChangeOpened, Rejected: true}, {Subscriber: 8, Change: syncer.ChangeBlocked, Rejected: true}}
	var out bytes.Buffer
	require.NoError(t, printGuard(&out, &console.GuardView{Rejected: no}))
	assert.Contains(t, out.String(), "2 changes, which are held as soon as the ERP says so again")
	assert.Contains(t, out.String(), "customer 7  would be let in, rejected")
	assert.Contains(t, out.String(), "customer 8  would be blocked, rejected")

	out.Reset()
	require.NoError(t, printGuard(&out, &console.GuardView{Rejected: no[:1],
		Held:    &syncer.HeldStatus{Decision: syncer.GuardDecision{Hold: true, Subscribers: 100, Opened: syncer.GuardCount{Count: 3, Share: .03, Limit: .1, Rejected: 1}}},
		Changes: []syncer.HeldChange{no[0], {Subscriber: 9, Change: syncer.ChangeBlocked, State: provision.StateStop, Source: syncer.SourceFormer}}}))
	assert.Contains(t, out.String(), "3 of 100 subscribers (3.0%, limit 10.0%): in use; beside them 1 that an operator rejected")
	assert.Contains(t, out.String(), "customer 9  would be stopped by the list of former customers\n")
	assert.Contains(t, out.String(), "an operator said no to 1 of these changes; accept would put them into use, too")
}

// A source that is not believed for other reasons than the limits of the guard is shown too, with the way to accept it.
func TestPrintHeldSources(t *testing.T) {
	st := syncer.SourceStatus{Source: syncer.SourceDevices, Judgement: syncer.JudgedHeld, Since: time.Now(), Error: "the list is empty", Fingerprint: "0123456789abcdef"}
	var out bytes.Buffer
	require.NoError(t, printGuard(&out, &console.GuardView{Sources: []syncer.SourceStatus{st}}))
	assert.Regexp(t, `devices +held since`, out.String())
	assert.Contains(t, out.String(), "the list is empty")
	assert.Regexp(t, `fingerprint +0123456789abcdef`, out.String())
	assert.Contains(t, out.String(), "usher guard accept --source devices, if the ERP is right")
	out.Reset()
	require.NoError(t, printGuardResult(&out, &console.GuardResult{Action: "accepted", Source: &st}))
	assert.Equal(t, "accepted: devices: the list is empty\nnext: the ERP is read again now: usher status\n", out.String())
}
