package console

import (
	"slices"

	"github.com/usher-agent/usher/provision/syncer"
)

// FileTrouble is what is wrong with a file of state_dir, but for the leases: of those StateStatus tells.
type FileTrouble struct {
	// Text says what is wrong and what follows, Advice what an operator may do.
	Text   string `json:"text"`
	Advice string `json:"advice"`
}

// files tells what cannot be written, then what could not be read at the start.
func (d *Deps) files(s *syncer.Status) (all []FileTrouble) {
	unstored := func(why, follows, often string) {
		if why != "" {
			all = append(all, FileTrouble{follows + ": " + why + ".", wayOut(why, often)})
		}
	}
	unread := slices.Clone(s.Unread)
	if !slices.Contains(unread, s.StoreError) { // it is nothing new
		unstored(s.StoreError, "A restart would begin with an older snapshot, or with none", "ten seconds")
	}
	unstored(s.GuardStoreError, "A restart would let pass more than an hour may, and forget what operators rejected", "time that something changes")
	if d.Answers != nil {
		before, now := d.Answers()
		unstored(now, "A restart would not know what the ERP said last", "ten seconds")
		if before != "" {
			unread = append(unread, before)
		}
	}
	if d.Garden != nil {
		g := d.Garden.Status()
		unstored(g.StoreError, "A restart would look up all names of the gardens anew", "ten minutes")
		if g.Unread != "" {
			unread = append(unread, g.Unread)
		}
	}
	for _, why := range unread {
		all = append(all, FileTrouble{
			"A file could not be read at the start, and what it had is not known: " + why + ".",
			"Look at the disk (dmesg, smartctl). What is kept aside stays until you remove it.",
		})
	}
	return all
}
