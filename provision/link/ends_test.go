package link

import "testing"

// FuzzConnection: whatever the kernel gives, it is read or passed over.
func FuzzConnection(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 4, 0, 1, 128})
	f.Fuzz(func(t *testing.T, msg []byte) {
		if c, ok := parseConnection(msg); ok && (!c.orig.src.IsValid() || !c.reply.dst.IsValid()) {
			t.Fatalf("half a connection: %v", c)
		}
	})
}
