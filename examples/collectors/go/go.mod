module redis-claw-collector

go 1.18
