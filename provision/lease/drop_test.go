package lease

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/wal"
)

// A lease that is ended by hand is over at once, is told to who follows, and is on disk when Write returns.
func TestDrop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := openStore(t, path)
	tab := openTable(t, store)
	rec := testRecord(ip7)
	tab.Store(rec)
	require.NoError(t, tab.commit(rec))
	f := tab.Follow()
	buf := make([]Change, 8)
	_, err := f.Next(t.Context(), buf)
	require.NoError(t, err)

	at := testNow.Add(time.Minute)
	assert.False(t, tab.Drop(ip7, mac2, at), "another client's lease")
	assert.False(t, tab.Drop(ip7.Next(), mac1, at), "no lease")
	assert.False(t, tab.Drop(ip7, mac1, rec.Expires), "it has run out")
	require.True(t, tab.Drop(ip7, mac1, at))
	n, err := f.Next(t.Context(), buf)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	assert.True(t, buf[0].Before.Live(at))
	assert.False(t, buf[0].After.Live(at))
	assert.False(t, tab.Drop(ip7, mac1, at), "it is over")
	require.NoError(t, tab.Write(ip7))
	require.NoError(t, tab.commit(rec), "the ACK of before comes late")
	require.NoError(t, store.Close())

	got, ok := openTable(t, openStore(t, path)).Get(ip7)
	require.True(t, ok)
	assert.Equal(t, StateReleased, got.State)
	assert.Equal(t, at, got.Expires)
	assert.Equal(t, mac1, got.MAC, "who had it is known")
	require.ErrorIs(t, tab.Write(ip7), wal.ErrClosed)
	assert.Equal(t, 1, tab.Counts(at).Dirty, "it is tried again")
	require.NoError(t, New().Write(ip7), "in memory there is nothing to write")
}

// A lease that is kept though it was given up ends too; a quarantine does not.
func TestDropOfOtherStates(t *testing.T) {
	tab := New()
	tab.Store(testRecord(ip7))
	require.True(t, tab.Keep(ip7, mac1, StateDeclined, testNow))
	require.True(t, tab.Drop(ip7, mac1, testNow.Add(time.Second)))
	assert.Equal(t, Counts{Released: 1}, tab.Counts(testNow.Add(time.Second)))
	q := testRecord(ip7.Next())
	q.State = StateQuarantined
	tab.Store(q)
	assert.False(t, tab.Drop(q.IP, mac1, testNow))
}
