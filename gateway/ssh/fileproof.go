package ssh

import "strconv"

// The kernel of a Linux host says of each open file of a program where it is,
// and its sftp server may read that of its own. So it can be proved that what
// was opened stands at the path that was judged, whatever somebody exchanges
// meanwhile: a path that is looked at twice may lead elsewhere each time. Other
// hosts, and those where sftp sees no /proc, get the weaker look; see same.
const openFiles = "/proc/self/fd/"

// How many numbers are looked at: a kernel gives a new file the lowest number
// that is free, and a few of them are the server's own.
const (
	fewNumbers  = 8
	manyNumbers = 64
)

// learn finds out whether the host's kernel can be asked, and what number its
// files begin with.
func (c *courier) learn() error {
	p, err := c.call(newMessage(fxOpendir, 0).text("/"))
	if err != nil {
		return err
	}
	handle, ok := handleOf(p)
	if !ok {
		return nil
	}
	number, err := c.numberOf("/", 0, manyNumbers)
	if err != nil {
		return err
	}
	c.proves, c.lowest = number >= 0, max(number, 0)
	_, err = c.call(newMessage(fxClose, 0).text(handle))
	return err
}

// prove makes sure that the file that was opened last stands at its path.
func (c *courier) prove(f *file) error {
	number, err := c.numberOf(f.name, c.lowest, fewNumbers)
	if err == nil && number < 0 {
		number, err = c.numberOf(f.name, 0, manyNumbers)
	}
	if err == nil && number < 0 {
		err = moved(f.name)
	}
	f.number = number
	return err
}

// numberOf is the number of an open file at a path that is none of those that
// the client has; -1 if there is none. There is one such file at most: each is
// opened, proved and given to the client, or closed, before the next one is.
func (c *courier) numberOf(name string, from, many int) (int, error) {
	var numbers []int
	var asks []message
	taken := c.numbersTaken()
	for n := from; len(numbers) < many; n++ {
		if !taken[n] {
			numbers = append(numbers, n)
			asks = append(asks, newMessage(fxReadlink, 0).text(openFiles+strconv.Itoa(n)))
		}
	}
	answers, err := c.callAll(asks)
	if err != nil {
		return -1, err
	}
	for i, p := range answers {
		if f := (fields{rest: p.body}); p.kind == fxName {
			f.uint32() // the id
			if count, at := f.uint32(), f.text(); count == 1 && at == name && !f.bad {
				return numbers[i], nil
			}
		}
	}
	return -1, nil
}

func (c *courier) numbersTaken() map[int]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := map[int]bool{}
	for _, f := range c.handles {
		taken[f.number] = true
	}
	return taken
}
