package syncer

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// An answer whose MACs are mixed up or gone is held, and the MACs in use stay.
func TestGuardHoldsMACs(t *testing.T) {
	composed := func(in *provision.Input) { in.Source = provision.SourceComposed }
	for name, tt := range map[string]struct {
		spoil func(*provision.Input)
		moved int
	}{
		"shifted by a row": {shiftMACs, 200},
		"gone": {func(in *provision.Input) {
			for i := range in.Lines {
				in.Lines[i].MAC = provision.MAC{}
			}
		}, 150},
		"one for all": {func(in *provision.Input) {
			for i := range in.Lines {
				in.Lines[i].MAC = provision.MAC{2, 9, 9, 9, 9, 9}
			}
		}, 200},
		"the neighbour's for those that had none": {func(in *provision.Input) {
			for i := range in.Lines {
				if in.Lines[i].MAC.IsZero() {
					in.Lines[i].MAC = in.Lines[i+1].MAC
				}
			}
		}, 50},
		"shifted by another source": {func(in *provision.Input) { composed(in); shiftMACs(in) }, 200},
		"gone with another source": {func(in *provision.Input) {
			composed(in)
			for i := range in.Lines {
				in.Lines[i].MAC = provision.MAC{}
			}
		}, 150},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				s, _ := startBooks(t, b, tightGuard, nil, nil)
				before := s.Current()
				b.setSpoil(tt.spoil)
				wholePoll(s)
				held := s.Status().Held
				require.NotNil(t, held)
				assert.Equal(t, tt.moved, held.Decision.Moved.Count)
				for ip, l := range before.Hosts4() {
					if !l.MAC.IsZero() {
						assert.Equal(t, l.MAC, s.Current().ByIP(ip).MAC)
					}
				}
				_, err := s.Accept(held.Fingerprint)
				require.NoError(t, err)
				assert.NotEqual(t, before.Fingerprint(), s.Current().Fingerprint())
				for i, l := range b.say().Lines {
					assert.Equal(t, l.MAC, s.Current().ByIP(provisiontest.IP(i)).MAC)
				}
			})
		})
	}
}

func shiftMACs(in *provision.Input) {
	firstMAC := in.Lines[0].MAC
	for i := range len(in.Lines) - 1 {
		in.Lines[i].MAC = in.Lines[i+1].MAC
	}
	in.Lines[len(in.Lines)-1].MAC = firstMAC
}

// Other MACs than those that were looked at are not accepted with their fingerprint.
func TestFingerprintHasMACs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooks(200)
		s, _ := startBooks(t, b, tightGuard, nil, nil)
		move := func(in *provision.Input) {
			for i := range in.Lines {
				in.Lines[i].Port += 500
			}
		}
		b.setSpoil(move)
		wholePoll(s)
		require.NotNil(t, s.Status().Held)
		looked := s.Status().Held.Fingerprint
		b.setSpoil(func(in *provision.Input) { move(in); shiftMACs(in) })
		wholePoll(s)
		_, err := s.Accept(looked)
		var other *OtherHeldError
		assert.ErrorAs(t, err, &other)
	})
}

// New routers that this agent saw, first MACs that nobody else has, and the same by another way of reading are no changes.
func TestGuardLetsOwnMACsPass(t *testing.T) {
	newRouters := func(in *provision.Input) {
		for i := range in.Lines {
			in.Lines[i].MAC[1] = 0x77
			in.Lines[i].MAC[5] = byte(i)
		}
	}
	seen := func(b *books, some int) func(netip.Addr, provision.MAC) bool {
		return func(ip netip.Addr, mac provision.MAC) bool {
			i := slices.IndexFunc(b.say().Lines, func(l provision.Line) bool { return l.Addresses[0].Prefix.Addr() == ip })
			return i < some && b.say().Lines[i].MAC == mac
		}
	}
	for name, tt := range map[string]struct {
		change func(*provision.Input)
		seen   int // by this agent: the MACs of so many; -1: it is not known what was
		held   int
	}{
		"new routers": {newRouters, 200, 0},
		"new routers of whom nobody knows whether they were seen": {newRouters, -1, 0},
		"most of the new routers were never seen":                 {newRouters, 20, 135}, // 45 have their first MAC
		"two customers exchanged their routers": {func(in *provision.Input) {
			in.Lines[1].MAC, in.Lines[2].MAC = in.Lines[2].MAC, in.Lines[1].MAC
		}, 0, 0},
		"shifted, and so they were seen, but for those that are gone": {shiftMACs, 200, 50},
		"another source, the same": {func(in *provision.Input) {
			in.Source = provision.SourceComposed
		}, 0, 0},
		"first MACs": {func(in *provision.Input) {
			for i := range in.Lines {
				if l := &in.Lines[i]; l.MAC.IsZero() {
					l.MAC = provision.MAC{2, 7, 7, 7, 7, byte(i)}
				}
			}
		}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				o := Options{PollInterval: time.Minute, RefreshInterval: 5 * time.Minute, Guard: tightGuard}
				if tt.seen >= 0 {
					o.OwnMAC = seen(b, tt.seen)
				}
				s := New(o, b, nil, nil, provisiontest.Quiet())
				runSyncer(t, s)
				pass(time.Second)
				b.setSpoil(tt.change)
				wholePoll(s)
				pass(time.Second)
				assert.Len(t, s.GuardStatus().Changes, tt.held)
				for i, l := range b.say().Lines {
					if is := s.Current().ByIP(provisiontest.IP(i)).MAC; s.HeldChanges(l.Subscriber) == nil {
						assert.Equal(t, l.MAC, is)
					} else {
						assert.NotEqual(t, l.MAC, is)
					}
				}
			})
		})
	}
}

// Rows for pools have no address. Where there is no port, their MACs are judged as those of addresses, and a VLAN finds whoever has it.
func TestGuardAndMACsOfRowsForPools(t *testing.T) {
	vacant := func(f func(i int, l *provision.Line)) func(*provision.Input) {
		return func(in *provision.Input) {
			for i := range in.Lines {
				in.Lines[i] = provision.Line{Subscriber: in.Lines[i].Subscriber}
				f(i, &in.Lines[i])
			}
		}
	}
	mac := func(i int) provision.MAC { return provision.MAC{2, 7, 7, 7, 7, byte(i)} }
	byVLAN := func(i int, l *provision.Line) { l.VLAN = uint16(100 + i) }
	byMAC := func(i int, l *provision.Line) { l.MAC = mac(i) }
	newMACs := vacant(func(i int, l *provision.Line) { l.MAC = provision.MAC{2, 8, 8, 8, 8, byte(i)} })
	no := func(netip.Addr, provision.MAC) bool { return false }
	anywhere := func(ip netip.Addr, _ provision.MAC) bool { return !ip.IsValid() }
	secondLine := func(b *provision.Input, mac func(i int) provision.MAC) {
		for i := range 40 {
			b.Lines = append(b.Lines, provision.Line{Subscriber: b.Lines[i].Subscriber, MAC: mac(i)})
		}
	}
	for name, tt := range map[string]struct {
		start, then func(*provision.Input)
		own         func(netip.Addr, provision.MAC) bool
		held        int
	}{
		"first MACs in VLANs":      {vacant(byVLAN), vacant(func(i int, l *provision.Line) { byVLAN(i, l); byMAC(i, l) }), no, 0},
		"one first MAC for all":    {vacant(byVLAN), vacant(func(i int, l *provision.Line) { byVLAN(i, l); byMAC(0, l) }), no, 200},
		"MACs gone":                {vacant(byMAC), vacant(byVLAN), nil, 200},
		"MACs shifted":             {vacant(byMAC), vacant(func(i int, l *provision.Line) { byMAC((i+1)%200, l) }), anywhere, 200},
		"new MACs, nothing seen":   {vacant(byMAC), newMACs, no, 200},
		"new MACs, seen":           {vacant(byMAC), newMACs, anywhere, 0},
		"new MACs, none seen here": {vacant(byMAC), newMACs, nil, 0},
		"one of two MACs gone": {func(in *provision.Input) {
			vacant(byMAC)(in)
			secondLine(in, func(i int) provision.MAC { return provision.MAC{2, 9, 9, 9, 9, byte(i)} })
		}, vacant(byMAC), nil, 40},
		"one MAC in place of two": {func(in *provision.Input) {
			vacant(byMAC)(in)
			secondLine(in, func(i int) provision.MAC { return provision.MAC{2, 9, 9, 9, 9, byte(i)} })
		}, func(in *provision.Input) {
			vacant(func(i int, l *provision.Line) {
				if byMAC(i, l); i < 40 {
					l.MAC[1] = 0x33
				}
			})(in)
		}, nil, 40},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				b.change(func(b *books) { b.truth.KeepVacant = true; tt.start(&b.truth) })
				s := New(Options{PollInterval: time.Minute, RefreshInterval: 5 * time.Minute, Guard: tightGuard, OwnMAC: tt.own, KeepVacant: true}, b, nil, nil, provisiontest.Quiet())
				runSyncer(t, s)
				pass(time.Second)
				b.change(func(b *books) { b.truth.Lines = b.truth.Lines[:200]; tt.then(&b.truth) })
				wholePoll(s)
				require.Len(t, s.GuardStatus().Changes, tt.held)
				if tt.held == 0 {
					require.Equal(t, b.truthNow().Fingerprint(), s.Current().Fingerprint())
				}
			})
		})
	}
}

// Whatever a client is found by counts, and nothing that finds nobody.
func TestGuardHoldsWhatClientsAreFoundBy(t *testing.T) {
	byVLAN := func(in *provision.Input) {
		for i := range in.Lines {
			in.Lines[i] = provision.Line{Subscriber: in.Lines[i].Subscriber, Addresses: in.Lines[i].Addresses, VLAN: uint16(100 + i)}
		}
	}
	each := func(f func(i int, l *provision.Line)) func(*provision.Input) {
		return func(in *provision.Input) {
			for i := range in.Lines {
				f(i, &in.Lines[i])
			}
		}
	}
	whole := provisiontest.Input(200).Lines
	for name, tt := range map[string]struct {
		start, spoil func(*provision.Input)
		held         int
	}{
		"VLANs gone":       {byVLAN, each(func(_ int, l *provision.Line) { l.VLAN = 0 }), 200},
		"VLANs shifted":    {byVLAN, each(func(i int, l *provision.Line) { l.VLAN = uint16(100 + (i+1)%200) }), 200},
		"one VLAN for all": {byVLAN, each(func(_ int, l *provision.Line) { l.VLAN = 100 }), 199},
		"VLANs of others for those who had none": {func(in *provision.Input) {
			byVLAN(in)
			for i := range in.Lines[:100] {
				in.Lines[2*i].VLAN = 0
			}
		}, each(func(i int, l *provision.Line) { l.VLAN = uint16(100 + i | 1) }), 100},
		"the source that is composed tells none": {byVLAN, func(in *provision.Input) {
			in.Source = provision.SourceComposed
			each(func(_ int, l *provision.Line) { l.VLAN = 0 })(in)
		}, 200},
		"VLANs that several share": {each(func(i int, l *provision.Line) { l.VLAN = uint16(100 + i/48) }), each(func(_ int, l *provision.Line) { l.VLAN += 20 }), 0},
		"many enter a VLAN that one had": {func(in *provision.Input) {
			byVLAN(in)
			for i := range in.Lines[:31] {
				in.Lines[i].VLAN = uint16(100 * (1 - min(i, 1)))
			}
		}, func(in *provision.Input) {
			for i := range in.Lines[:31] {
				in.Lines[i].VLAN = 100
			}
		}, 0},
		"many enter a port that one had": {each(func(i int, l *provision.Line) {
			if i%100 != 0 {
				l.Device, l.Port, l.PortName = 0, 0, ""
			}
		}), each(func(i int, l *provision.Line) {
			from := whole[i/100*100]
			l.Device, l.Port, l.PortName = from.Device, from.Port, from.PortName
		}), 0},
		"names of ports gone":    {nil, each(func(_ int, l *provision.Line) { l.PortName = "" }), 200},
		"names of ports shifted": {nil, each(func(i int, l *provision.Line) { l.PortName = whole[(i+1)%200].PortName }), 200},
		"names of ports gained":  {each(func(_ int, l *provision.Line) { l.PortName = "" }), each(func(i int, l *provision.Line) { l.PortName = whole[i].PortName }), 0},
		"a switch was renamed at one port": {nil, func(in *provision.Input) {
			in.Lines[7].PortName = "uplink"
		}, 0},
		"ports of others for those who had none": {each(func(i int, l *provision.Line) {
			if i%2 == 0 {
				l.Device, l.Port, l.PortName = 0, 0, ""
			}
		}), each(func(i int, l *provision.Line) {
			if from := whole[i|1]; i%2 == 0 {
				l.Device, l.Port, l.PortName = from.Device, from.Port, from.PortName
			}
		}), 100},
		"ports at last": {each(func(i int, l *provision.Line) { l.Device, l.Port, l.PortName = 0, 0, "" }), each(func(i int, l *provision.Line) {
			l.Device, l.Port, l.PortName = whole[i].Device, whole[i].Port, whole[i].PortName
		}), 0},
		"ports of fibre, which many share": {each(func(i int, l *provision.Line) {
			if l.Device, l.Port, l.PortName = 0, 0, ""; i%20 < 2 {
				l.Device, l.Port = 9, uint32(1+i/20)
			}
		}), each(func(i int, l *provision.Line) { l.Device, l.Port = 9, uint32(1+i/20) }), 0},
		"composed bindings of the same ports": {nil, func(in *provision.Input) { in.Source = provision.SourceComposed }, 0},
		"a switch of 20 ports is cabled anew": {nil, func(in *provision.Input) {
			for i := range 20 {
				in.Lines[i].Port, in.Lines[i].PortName = in.Lines[19-i].Port, in.Lines[19-i].PortName
			}
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				if tt.start != nil {
					tt.start(&b.truth)
				}
				s, _ := startBooks(t, b, tightGuard, nil, nil)
				before := s.Current()
				b.change(func(b *books) { tt.spoil(&b.truth) })
				if tt.held == 0 {
					wholePoll(s)
					assert.Nil(t, s.Status().Held)
					assert.Equal(t, b.truthNow().Fingerprint(), s.Current().Fingerprint())
					return
				}
				wholePoll(s)
				require.NotNil(t, s.Status().Held)
				assert.Equal(t, tt.held, s.Status().Held.Decision.Moved.Count)
				assert.Len(t, s.GuardStatus().Changes, tt.held)
				assert.Same(t, before, s.Current())
			})
		})
	}
}
