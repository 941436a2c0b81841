package link

// WithBuffer returns the options with another receive buffer of subscriptions, in
// bytes; the kernel makes it 2,304 at least.
func (o WatchOptions) WithBuffer(n int) WatchOptions {
	o.buffer = n
	return o
}
