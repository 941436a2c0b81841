package console

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision/syncer"
)

func badSources() []syncer.SourceStatus {
	return []syncer.SourceStatus{
		{Source: syncer.SourceBindings, Judgement: syncer.JudgedGood, GoodAt: testStart},
		{Source: syncer.SourceFlags, Judgement: syncer.JudgedPartial, Error: "3 of 5 cards were never read"},
		{Source: syncer.SourceDevices, Judgement: syncer.JudgedFailed, GoodAt: testStart, Since: testStart.Add(time.Minute), Error: "permission denied"},
		{Source: syncer.SourceFormer, Judgement: syncer.JudgedHeld, Since: testStart, Error: "the list is empty"},
	}
}

// What is degraded is told, and is no reason to be not ready.
func TestDegraded(t *testing.T) {
	w := newWorld(t)
	require.Empty(t, w.status().Degraded)
	w.syncer.status.Sources = badSources()
	st := w.status()
	require.Len(t, st.Degraded, 2)
	at := func(d time.Duration) string { return testStart.Add(d).Local().Format(time.DateTime) }
	assert.Equal(t, "devices of the ERP: failed since "+at(time.Minute)+", what was read at "+at(0)+" is in use: permission denied", st.Degraded[0])
	assert.Equal(t, "former of the ERP: held since "+at(0)+", none was ever good: the list is empty", st.Degraded[1])
	assert.True(t, st.Ready)
	assert.Subset(t, w.warnings(), st.Degraded)
}

// Who asks about a client is told that the list of switches is an old one, and is not sent to edit the ERP.
func TestExplainNamesTheSource(t *testing.T) {
	w := newWorld(t)
	silenced := dhcpd.Event{Time: w.now.Add(-time.Second), Outcome: outcome.UnknownDevice, MAC: mac(t, "00:00:5e:00:53:13"), YourIP: ip("198.51.100.13")}
	w.packet(silenced)
	w.dhcp.answer = dhcpd.Explanation{Outcome: outcome.UnknownDevice}
	advice := Advice(outcome.UnknownDevice)
	x, err := w.explain(t.Context(), "198.51.100.13")
	require.NoError(t, err)
	require.Contains(t, x.Summary, advice)
	require.NotContains(t, x.Summary, "Attention")

	w.syncer.status.Sources = badSources()
	x, err = w.explain(t.Context(), "198.51.100.13")
	require.NoError(t, err)
	assert.NotContains(t, x.Summary, advice)
	assert.NotContains(t, x.Would.Advice, advice)
	assert.Contains(t, x.Summary, "Attention: the ERP's list of switches may be old (devices): failed since")
	assert.Contains(t, x.Summary, "permission denied.")
	assert.Contains(t, x.Summary, "Attention: the ERP's list of former customers may be old (former): held since")
	assert.NotContains(t, x.Summary, "never read", "what is read in part is good as far as it goes")
}
