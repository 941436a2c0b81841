package lease

import (
	"encoding/json"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A lease that was released or declined by nobody knows whom is its client's until it expires.
func TestKeptLease(t *testing.T) {
	end, later := testNow.Add(time.Hour), testNow.Add(time.Minute)
	for _, s := range []State{StateReleased, StateDeclined} {
		t.Run(s.String(), func(t *testing.T) {
			tab := New()
			tab.Store(testRecord(ip7))
			assert.False(t, tab.Keep(ip7, mac2, s, later), "another client's")
			require.True(t, tab.Keep(ip7, mac1, s, later))
			rec, _ := tab.Get(ip7)
			assert.Equal(t, []any{s, later, end}, []any{rec.State, rec.Renewed, rec.Expires})
			assert.True(t, rec.Live(later))
			assert.True(t, rec.Kept(later))
			assert.Equal(t, s.String()+" (kept until 2026-05-01 13:00:00)", rec.Standing(later))
			assert.Equal(t, Counts{Kept: 1}, tab.Counts(later))
			require.True(t, tab.Keep(ip7, mac1, s, later), "and once more")

			require.True(t, tab.Renew(ip7, mac1, later, later.Add(time.Hour)), "its client goes on with it")
			rec, _ = tab.Get(ip7)
			assert.Equal(t, []any{StateBound, later.Add(time.Hour)}, []any{rec.State, rec.Expires})
			assert.Equal(t, "bound until 2026-05-01 13:01:00", rec.Standing(later))
			assert.Equal(t, Counts{Bound: 1}, tab.Counts(later))

			require.True(t, tab.Keep(ip7, mac1, s, later))
			require.True(t, tab.SetState(ip7, mac1, s, later), "one that is the client's for sure ends it")
			rec, _ = tab.Get(ip7)
			assert.False(t, rec.Live(later))
			assert.Equal(t, s.String()+" at 2026-05-01 12:01:00", rec.Standing(later))
			assert.Zero(t, tab.Counts(later).Kept)
			assert.False(t, tab.Renew(ip7, mac1, later, end), "and then it is not renewed")
			assert.False(t, tab.Keep(ip7, mac1, s, later), "nor kept")
		})
	}
}

func TestKeptLeaseExpires(t *testing.T) {
	tab := New()
	tab.Store(testRecord(ip7))
	require.True(t, tab.Keep(ip7, mac1, StateReleased, testNow))
	end := testNow.Add(time.Hour)
	rec, _ := tab.Get(ip7)
	assert.True(t, rec.Live(end.Add(-time.Nanosecond)))
	assert.False(t, rec.Live(end))
	assert.Equal(t, Counts{Released: 1}, tab.Counts(end))
	assert.False(t, tab.Renew(ip7, mac1, end, end.Add(time.Hour)))
}

// Only a lease can be kept: who declined an address of a pool does not get it back by giving it up.
func TestQuarantineIsNotKept(t *testing.T) {
	tab := New()
	rec := testRecord(ip7)
	rec.State = StateQuarantined
	tab.Store(rec)
	assert.False(t, tab.Keep(ip7, mac1, StateReleased, testNow))
	got, _ := tab.Get(ip7)
	assert.Equal(t, StateQuarantined, got.State)
}

// That a lease is kept is told and written like any other change.
func TestKeptLeaseIsToldAndWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	store := openStore(t, path)
	tab := openTable(t, store)
	rec := testRecord(ip7)
	tab.Store(rec)
	require.NoError(t, tab.commit(rec))
	f := tab.Follow()
	defer f.Close()
	changes := make([]Change, 4)
	_, err := f.Next(t.Context(), changes)
	require.NoError(t, err)

	require.True(t, tab.Keep(ip7, mac1, StateReleased, testNow.Add(time.Minute)))
	n, err := f.Next(t.Context(), changes)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	assert.Equal(t, StateBound, changes[0].Before.State)
	assert.Equal(t, StateReleased, changes[0].After.State)
	assert.Equal(t, rec.Expires, changes[0].After.Expires)

	assert.Equal(t, 1, tab.Counts(testNow).Dirty)
	require.NoError(t, tab.Flush())
	require.NoError(t, store.Close())
	got, _ := openTable(t, openStore(t, path)).Get(ip7)
	assert.True(t, got.Kept(testNow), "and after a restart")
	assert.Equal(t, rec.Expires, got.Expires)
}

// A RELEASE in the same tick of the clock as the ACK is not overwritten by the ACK's commit.
func TestCommitDoesNotUndoWhatCameInTheSameTick(t *testing.T) {
	for name, giveUp := range map[string]func(*Table){
		"kept":  func(tab *Table) { tab.Keep(ip7, mac1, StateReleased, testNow) },
		"ended": func(tab *Table) { tab.SetState(ip7, mac1, StateReleased, testNow) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.db")
			store := openStore(t, path)
			tab := openTable(t, store)
			acked := testRecord(ip7)
			tab.Store(acked)
			giveUp(tab)
			require.NoError(t, tab.Flush())
			require.NoError(t, tab.commit(acked))
			require.NoError(t, store.Close())
			got, _ := openTable(t, openStore(t, path)).Get(ip7)
			assert.Equal(t, StateReleased, got.State)
		})
	}
}

// From whom an address was taken is for the memory and for people: no stored form has it.
func TestPriorIsNotStored(t *testing.T) {
	rec := testRecord(ip7)
	plain := encode(nil, &rec)
	rec.Prior = mac2
	assert.Equal(t, plain, encode(nil, &rec))
	text, err := json.Marshal(rec)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"prior":"00:00:5e:00:53:02"`)
	tab := New()
	tab.Store(rec)
	require.True(t, tab.Renew(ip7, mac1, testNow, testNow.Add(2*time.Hour)))
	got, _ := tab.Get(ip7)
	assert.Equal(t, mac2, got.Prior, "a renewal keeps it")
}
