package erp

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/emulator"
)

// The first start while the list of switches alone cannot be read, or says nothing: everybody has address, MAC and state at
// once, and that the switches are unknown is known. When the list comes all is as it would have been, and the guard holds nothing.
func TestFirstStartWithoutDevices(t *testing.T) {
	first := func(t *testing.T, w *tableWorld, fault emulator.Fault) {
		t.Helper()
		began := time.Now()
		f, use := w.try(t, syncer.SourceDevices, fault, NewMemory(), nil)
		if fault == emulator.FaultHang {
			require.Less(t, time.Since(began), time.Minute)
		}
		st := statusOf(t, f, syncer.SourceDevices)
		if fault == emulator.FaultHalf { // what the list lacks is there when it is asked for by itself
			require.Equal(t, syncer.JudgedPartial, st.Judgement)
			require.False(t, use.DevicesUnread())
			require.Empty(t, harm(w.truth, use))
			return
		}
		require.True(t, use.DevicesUnread())
		require.True(t, st.Bad(), "%+v", st)
		require.True(t, st.GoodAt.IsZero())
		served := func(use *provision.Snapshot) {
			t.Helper()
			for ip, l := range w.truth.Hosts4() {
				now := use.ByIP(ip)
				require.NotNil(t, now, "%s", ip)
				require.Equal(t, l.Subscriber, now.Subscriber)
				require.Equal(t, l.MAC, now.MAC)
				require.Equal(t, l.HasPort(), now.HasPort())
			}
			for _, s := range w.truth.Subscribers() {
				require.Equal(t, s.State.Blocks(), use.State(s.ID).Blocks(), "customer %d", s.ID)
			}
		}
		m := f.memory
		for range 3 { // it goes on so, also over restarts
			answer, err := f.FetchStates(t.Context(), use)
			require.NoError(t, err)
			require.True(t, answer.Refresh, "the list is asked for again soon")
			f, _ = w.agent(t, m)
			use, _ = read(t, f, use)
			require.True(t, use.DevicesUnread())
			served(use)
		}
		require.NoError(t, w.erp.SetQuirks(emulator.Quirks{}))
		use, sources := read(t, f, use)
		require.False(t, use.DevicesUnread())
		require.Empty(t, harm(w.truth, use))
		for _, st := range sources {
			require.Equal(t, syncer.JudgedGood, st.Judgement, "%+v", st)
		}
		w.breakSource(t, syncer.SourceDevices, fault)
		use, _ = read(t, f, use)
		require.False(t, use.DevicesUnread(), "it was read once")
		require.Empty(t, harm(w.truth, use))
	}
	for _, mode := range []Mode{ModeDirect, ModeComposed} {
		e, c := openEmulator(t, emulator.Options{Seed: 7, Customers: 144})
		w := newTableWorld(t, 144, c, e, mode)
		for _, fault := range []emulator.Fault{emulator.FaultForbidden, emulator.FaultError, emulator.FaultEmpty, emulator.FaultHalf, emulator.FaultGarbage} {
			t.Run(fmt.Sprintf("%s %s", mode, fault), func(t *testing.T) { first(t, w, fault) })
		}
		t.Run(fmt.Sprintf("%s hang", mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, err := emulator.Open(emulator.Options{Seed: 7, Customers: 144, Keys: []emulator.Key{{Key: emulatorKey}}})
				require.NoError(t, err)
				defer func() { require.NoError(t, e.Close()) }()
				c, err := userside.New(userside.Options{URL: "http://192.0.2.1/api.php", Key: emulatorKey, Transport: inProcess{e}, Location: time.UTC})
				require.NoError(t, err)
				first(t, newTableWorld(t, 144, c, e, mode), emulator.FaultHang)
			})
		})
	}
}

// A switch that a row names, that the list lacks and that cannot be asked for by itself costs itself alone: the others are asked
// for, the source says what is missing, and after two fetches the list counts as read.
func TestFirstStartWithASwitchThatCannotBeAskedFor(t *testing.T) {
	for name, answer := range map[string]string{
		"an error text": `200 {"result":"ERROR","error":"no access to the object"}`,
		"unreadable":    `200 {"result":"OK","data":{"x":{"id":"x"}}}`,
		"no answer":     "500 x",
		"no JSON":       "200 <html>",
	} {
		t.Run(name, func(t *testing.T) {
			one := func(i int) string { return fmt.Sprintf(oneDevice, 10+i) }
			_, c := newFakeERP(t, with(tenSwitches(), deviceList, switches(10, func(i int) bool { return i >= 3 }),
				one(0), answer, one(1), `200 {"result":"OK","data":[]}`, one(2), switches(10, func(i int) bool { return i == 2 })))
			f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
			var prev *provision.Snapshot
			for i := range 5 {
				in := fetch(t, f, prev)
				st := statusOf(t, f, syncer.SourceDevices)
				require.Equal(t, syncer.JudgedPartial, st.Judgement, "fetch %d: %s", i, st.Error)
				require.Contains(t, st.Error, "of 10 devices that bindings name")
				require.Equal(t, i == 0, in.DevicesUnread, "fetch %d", i)
				prev, _ = provision.Build(in)
			}
			require.Len(t, prev.Devices(), 8, "those of the list, and the one that is read by itself")
			st := statusOf(t, f, syncer.SourceDevices)
			require.Contains(t, st.Error, "the list lacks 2 of 10 devices that bindings name; asked for by themselves: ", "of one the ERP says that there is none")
			require.Equal(t, 2, f.memory.gone[11])
		})
	}
	t.Run("no more than it", func(t *testing.T) {
		less := func(i int) bool { return i >= 1 }
		_, c := newFakeERP(t, with(tenSwitches(), deviceList, switches(10, less), fmt.Sprintf(oneDevice, 10), refused))
		f, _ := newFetcher(t, c, Options{Bindings: ModeDirect})
		in := fetch(t, f, nil)
		st := statusOf(t, f, syncer.SourceDevices)
		require.Equal(t, syncer.JudgedPartial, st.Judgement)
		require.Contains(t, st.Error, "the list lacks 1 of 10 devices that bindings name; asked for by themselves: ")
		require.True(t, in.DevicesUnread)
		prev, _ := provision.Build(in)
		require.False(t, fetch(t, f, prev).DevicesUnread)
	})
}
