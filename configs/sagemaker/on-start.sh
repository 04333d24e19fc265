#!/bin/bash
# Lifecycle configuration of a notebook instance ("start notebook"): the kernel "ccai" is there again after a restart.
# A lifecycle script has five minutes, so the first making goes on behind it; its log is .ccai-kernel.log.
set -eu
# as its standard input: sudo -i joins the lines of a command that it is given
sudo -u ec2-user -i << 'END'
cd /home/ec2-user/SageMaker/contemplative_cai 2> /dev/null || exit 0
nohup bash configs/sagemaker/kernel.sh > /home/ec2-user/SageMaker/.ccai-kernel.log 2>&1 < /dev/null &
END
