"""From a head's outputs to entities, labels and answers, without torch: training and deployment decode alike."""
