package syncer

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// tellingERP is a fakeERP that tells how its sources stand.
type tellingERP struct {
	*fakeERP
	sources []SourceStatus
}

func (f tellingERP) Sources() []SourceStatus { return append([]SourceStatus(nil), f.sources...) }

// A source is held, too, while the guard holds what it said.
func TestSourcesTheGuardHolds(t *testing.T) {
	paused := provisiontest.Input(100)
	for i := range paused.Subscribers {
		paused.Subscribers[i].State = provision.StatePause
	}
	nets := provisiontest.Input(100)
	for i := range 30 {
		nets.CustomerSubnets = append(nets.CustomerSubnets, provision.Subnet{Subscriber: nets.Subscribers[i].ID, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(8 * i)}), 29)})
	}
	with := func(in provision.Input) provision.Input {
		in.CustomerSubnets = nets.CustomerSubnets
		return in
	}
	for name, tt := range map[string]struct {
		next provision.Input
		held SourceName
		says string
	}{
		"no subnet":        {provisiontest.Input(100), SourceSubnets, "would move 30"},
		"half of the rows": {with(without(50)), SourceBindings, "would remove 50"},
		"no row":           {with(without(100)), SourceBindings, "no binding at all"},
		"all paused":       {with(paused), SourceStates, "would block"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good := time.Now()
				erp := tellingERP{&fakeERP{answer: says(nets)}, []SourceStatus{
					{Source: SourceBindings, Judgement: JudgedGood, GoodAt: good}, {Source: SourceStates, Judgement: JudgedGood, GoodAt: good}, {Source: SourceSubnets, Judgement: JudgedGood, GoodAt: good},
					{Source: SourceDevices, Judgement: JudgedFailed, Error: "forbidden", Since: good},
				}}
				s := New(Options{PollInterval: time.Minute, Guard: tightGuard}, erp, nil, nil, provisiontest.Quiet())
				runSyncer(t, s)
				for _, st := range s.Status().Sources {
					assert.Equal(t, st.Source == SourceDevices, st.Bad(), "%s", st.Source)
				}
				erp.set(says(tt.next))
				pass(2 * time.Minute)
				for _, st := range s.Status().Sources {
					switch st.Source {
					case tt.held:
						assert.Equal(t, JudgedHeld, st.Judgement)
						assert.Contains(t, st.Error, tt.says)
						assert.Contains(t, st.Text(), "is in use: the guard holds it")
						assert.Greater(t, st.AgeSeconds, 60.0)
					case SourceDevices:
						assert.Equal(t, JudgedFailed, st.Judgement)
						assert.Contains(t, st.Text(), "none was ever good: forbidden")
					default:
						assert.Equal(t, JudgedGood, st.Judgement)
						assert.Equal(t, "good", st.Text())
					}
				}
			})
		})
	}
}

// While openings are held, for a card contradicts or none can be read, the states are not good: they are not in use.
func TestSourceOfHeldOpenings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		paused := provisiontest.Input(100)
		for i := range paused.Subscribers {
			paused.Subscribers[i].State = provision.StatePause
		}
		erp := tellingERP{&fakeERP{answer: says(paused)}, []SourceStatus{
			{Source: SourceBindings, Judgement: JudgedGood}, {Source: SourceStates, Judgement: JudgedGood}, {Source: SourceFlags, Judgement: JudgedGood},
		}}
		s := New(Options{PollInterval: time.Minute, Guard: tightGuard}, erp, nil, nil, provisiontest.Quiet())
		runSyncer(t, s)
		erp.set(says(provisiontest.Input(100)))
		pass(2 * time.Minute)
		for _, st := range s.Status().Sources {
			assert.Equal(t, st.Source == SourceStates, st.Bad(), "%s", st.Source)
			assert.Equal(t, st.Source == SourceStates, st.Guard, "%s", st.Source)
		}
		pass(10 * time.Minute)
		for _, st := range s.Status().Sources {
			assert.False(t, st.Bad(), "%s: they were let in", st.Source)
		}
	})
}

// blamingERP knows by which source subscribers are blocked: by their flags where the id is odd.
type blamingERP struct{ tellingERP }

func (blamingERP) BlockedBy(id provision.SubscriberID, _ provision.State) SourceName {
	if id%2 == 1 {
		return SourceFlags
	}
	return SourceStates
}

// What the guard holds is told of the source that said it, in the status, in the log and of each customer.
func TestTheGuardBlamesTheRightSource(t *testing.T) {
	for name, tt := range map[string]struct {
		wrong func(id provision.SubscriberID) bool
		want  []SourceName
	}{
		"flags":  {func(id provision.SubscriberID) bool { return id%2 == 1 }, []SourceName{SourceFlags}},
		"states": {func(id provision.SubscriberID) bool { return id%2 == 0 }, []SourceName{SourceStates}},
		"both":   {func(provision.SubscriberID) bool { return true }, []SourceName{SourceStates, SourceFlags}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var text bytes.Buffer // written under the lock of the syncer, read when it is at rest
				erp := blamingERP{tellingERP{&fakeERP{answer: says(provisiontest.Input(100))}, []SourceStatus{
					{Source: SourceBindings, Judgement: JudgedGood}, {Source: SourceStates, Judgement: JudgedGood},
					{Source: SourceFlags, Judgement: JudgedGood}, {Source: SourceFormer, Judgement: JudgedGood},
				}}}
				s := New(Options{PollInterval: time.Minute, Guard: tightGuard}, erp, nil, nil, slog.New(slog.NewTextHandler(&text, nil)))
				runSyncer(t, s)
				in := provisiontest.Input(100)
				for i := range in.Subscribers {
					if sub := &in.Subscribers[i]; tt.wrong(sub.ID) {
						sub.State = provision.StateStop
					}
				}
				erp.set(says(in))
				pass(2 * time.Minute)
				var held []SourceName
				for _, st := range s.Status().Sources {
					if st.Judgement == JudgedHeld && st.Guard && st.Bad() {
						held = append(held, st.Source)
					}
				}
				require.Equal(t, tt.want, held)
				require.Contains(t, strings.ReplaceAll(text.String(), `"`, ""), fmt.Sprintf("sources=%v ", tt.want))
				for _, c := range s.GuardStatus().Changes {
					want := "would be stopped"
					if c.Subscriber%2 == 1 {
						want = "would be stopped by the flags on its card"
					}
					require.Equal(t, want, c.Text())
				}
				require.NoError(t, reject(s))
				pass(time.Minute)
				_, err := s.AcceptSource(tt.want[0], "")
				require.ErrorContains(t, err, "usher guard accept, without a source")
			})
		})
	}
}

// States that a whole fetch kept, for the ERP did not tell any, are no news: they undo no state set here, and are as old as
// they were.
func TestKeptStatesAreNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		erp := &fakeERP{answer: says(provisiontest.Input(10))}
		s := startSyncer(t, Options{PollInterval: time.Minute, Guard: GuardLimits{MinChanged: 2}}, erp, nil, nil)
		read := s.Status().StatesAt
		var id provision.SubscriberID
		for _, sub := range s.Current().Subscribers() {
			if sub.State == provision.StateActive {
				id = sub.ID
			}
		}
		require.NotZero(t, id)
		pass(10 * time.Second)
		s.Override(id, provision.StatePause, time.Now())

		kept := provisiontest.Input(10)
		kept.StatesKept = true
		erp.set(says(kept))
		pass(5 * time.Minute)
		assert.Equal(t, provision.StatePause, s.Current().State(id), "the fetches began after it, the states are older")
		st := s.Status()
		assert.Equal(t, read, st.StatesAt)
		assert.InDelta(t, 310, st.StatesAgeSeconds, 1)
		assert.Less(t, st.AgeSeconds, 70.0, "the rest is new")

		erp.set(fails(errors.New("down")))
		pass(5 * time.Minute)
		erp.set(says(provisiontest.Input(10)))
		pass(2 * time.Minute)
		assert.Equal(t, provision.StateActive, s.Current().State(id), "the ERP has told them again")
		assert.True(t, s.Status().StatesAt.After(read))
	})
}

// acceptingERP can be told to believe what it holds.
type acceptingERP struct {
	tellingERP
	accepted *[]SourceName
}

func (f acceptingERP) AcceptSource(name SourceName, fingerprint string) error {
	if fingerprint != "" && fingerprint != "seen" {
		return &OtherHeldError{"seen"}
	}
	*f.accepted = append(*f.accepted, name)
	return nil
}

// What is held of a source is accepted alone, and everything is read at once; what the guard holds is not accepted by that.
func TestAcceptSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var accepted []SourceName
		erp := acceptingERP{tellingERP{&fakeERP{answer: says(provisiontest.Input(100))}, []SourceStatus{
			{Source: SourceBindings, Judgement: JudgedGood}, {Source: SourceDevices, Judgement: JudgedHeld, Error: "the list is empty"}, {Source: SourceFormer, Judgement: JudgedFailed},
		}}, &accepted}
		s := New(Options{PollInterval: time.Hour, Guard: tightGuard}, erp, nil, nil, provisiontest.Quiet())
		runSyncer(t, s)
		for _, name := range []SourceName{SourceBindings, SourceFormer, SourceFlags, "switches"} {
			_, err := s.AcceptSource(name, "")
			require.ErrorIs(t, err, ErrSourceNotHeld)
		}
		_, err := s.AcceptSource(SourceDevices, "other")
		require.ErrorAs(t, err, new(*OtherHeldError))
		assert.Empty(t, accepted)
		st, err := s.AcceptSource(SourceDevices, "seen")
		require.NoError(t, err)
		assert.Equal(t, "the list is empty", st.Error)
		assert.Equal(t, []SourceName{SourceDevices}, accepted)
		pass(time.Second)
		assert.Equal(t, 2, erp.count(), "read again at once")

		erp.set(says(without(50)))
		s.Refresh()
		pass(time.Second)
		require.NotNil(t, s.Status().Held)
		_, err = s.AcceptSource(SourceBindings, "")
		require.ErrorContains(t, err, "usher guard accept, without a source")
		assert.Len(t, accepted, 1)
	})
}
