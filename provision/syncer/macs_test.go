package syncer

import (
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
	for name, spoil := range map[string]func(*provision.Input){
		"shifted by a row": shiftMACs,
		"gone": func(in *provision.Input) {
			for i := range in.Lines {
				in.Lines[i].MAC = provision.MAC{}
			}
		},
		"one for all": func(in *provision.Input) {
			for i := range in.Lines {
				in.Lines[i].MAC = provision.MAC{2, 9, 9, 9, 9, 9}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				s, _ := startBooks(t, b, tightGuard, nil, nil)
				before := s.Current()
				b.setSpoil(spoil)
				wholePoll(s)
				held := s.Status().Held
				require.NotNil(t, held)
				assert.Equal(t, 150, held.Decision.Moved.Count, "those that had a MAC")
				for ip, l := range before.Hosts4() {
					if !l.MAC.IsZero() {
						assert.Equal(t, l.MAC, s.Current().ByIP(ip).MAC)
					}
				}
				_, err := s.Accept(held.Fingerprint)
				require.NoError(t, err)
				assert.NotEqual(t, before.ByIP(provisiontest.IP(1)).MAC, s.Current().ByIP(provisiontest.IP(1)).MAC)
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

// New routers of everybody, which the agent told the ERP of, first MACs, and MACs by another way of reading are no changes.
func TestGuardLetsOwnMACsPass(t *testing.T) {
	for name, change := range map[string]func(*provision.Input){
		"new routers": func(in *provision.Input) {
			for i := range in.Lines {
				in.Lines[i].MAC[1] = 0x77
				in.Lines[i].MAC[5] = byte(i)
			}
		},
		"another source": func(in *provision.Input) {
			shiftMACs(in)
			in.Source = provision.SourceComposed
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBooks(200)
				s, _ := startBooks(t, b, tightGuard, nil, nil)
				b.setSpoil(change)
				wholePoll(s)
				pass(time.Second)
				assert.Nil(t, s.Status().Held)
				assert.Equal(t, b.say().Lines[7].MAC, s.Current().ByIP(provisiontest.IP(7)).MAC)
			})
		})
	}
}
